//! The common problem from its options to its verdict, for callers that know the size at run time only.

use std::time::Duration;

use super::{Options, Visitor, with_model, with_monotone_model};
use crate::error::{Error, Result};
use crate::explore::search::{
    Control, Finding, Model, Outcome, Reductions, SaturatedOutcome, Stopped, follow, saturate, search,
};

/// What came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// The plain engine's result; of a saturated run, that which made its finding concrete.
    pub plain: Option<Outcome>,
    /// The saturating engine's.
    pub saturated: Option<SaturatedOutcome>,
    /// The counterexample in words, one line for each action.
    pub trace: Vec<String>,
}

impl Report {
    /// Whether all was searched and no invariant is violated.
    pub fn is_proof(&self) -> bool {
        match (&self.saturated, &self.plain) {
            (Some(saturated), _) => saturated.is_proof(),
            (None, plain) => plain.as_ref().is_some_and(Outcome::is_proof),
        }
    }

    /// The invariants violated, by bits.
    pub fn violations(&self) -> u32 {
        let plain = self.plain.as_ref().map_or(0, |outcome| outcome.violations);
        plain | self.saturated.as_ref().map_or(0, |outcome| outcome.violations)
    }

    /// What cut the search that the verdict rests on short.
    pub fn stopped(&self) -> Option<Stopped> {
        match (&self.saturated, &self.plain) {
            (Some(saturated), _) => saturated.stopped,
            (None, plain) => plain.as_ref().and_then(|outcome| outcome.stopped),
        }
    }

    /// The first violation.
    pub fn finding(&self) -> Option<&Finding> {
        self.plain.as_ref()?.finding.as_ref()
    }

    /// Wall time of all searches.
    pub fn elapsed(&self) -> Duration {
        let plain = self.plain.as_ref().map_or(Duration::ZERO, |outcome| outcome.elapsed);
        plain + self.saturated.as_ref().map_or(Duration::ZERO, |outcome| outcome.elapsed)
    }
}

/// Searches the model of `options`, saturated if `reductions` says so, else plainly with `threads` threads.
///
/// With `to_first` a search ends at its first violation. What saturation finds is searched again plainly at the same size, for
/// the shortest path.
///
/// # Errors
///
/// If the size is not compiled.
pub fn explore(
    options: Options,
    reductions: Reductions,
    threads: usize,
    to_first: bool,
    control: &mut Control<'_>,
) -> Result<Report> {
    if !reductions.saturate {
        return with_model(options, Plain { reductions, threads, to_first, control });
    }
    let saturated = with_monotone_model(options, Saturated { reductions, to_first, control })??;
    let mut report = Report { plain: None, saturated: None, trace: Vec::new() };
    if saturated.violations != 0 {
        report = with_model(options, Plain { reductions: reductions.for_witness(), threads, to_first: true, control })?;
    }
    Ok(Report { saturated: Some(saturated), ..report })
}

struct Plain<'a, 'b> {
    reductions: Reductions,
    threads: usize,
    to_first: bool,
    control: &'a mut Control<'b>,
}

impl Visitor for Plain<'_, '_> {
    type Output = Report;

    fn visit<M: Model>(self, model: &M) -> Report {
        let outcome = search(model, self.reductions, self.threads, self.to_first, self.control);
        let path = outcome.finding.as_ref().and_then(|finding| finding.path.as_ref());
        let mut trace = Vec::new();
        if let Some((mut state, steps)) = path.and_then(|path| follow(model, path)) {
            for step in steps {
                trace.push(model.describe(&state, step.action));
                state = step.state;
            }
        }
        Report { plain: Some(outcome), saturated: None, trace }
    }
}

struct Saturated<'a, 'b> {
    reductions: Reductions,
    to_first: bool,
    control: &'a mut Control<'b>,
}

impl Visitor for Saturated<'_, '_> {
    type Output = Result<SaturatedOutcome>;

    fn visit<M: Model>(self, model: &M) -> Self::Output {
        saturate(model, self.reductions, self.to_first, self.control).map_err(|reason| Error::Value(reason.to_string()))
    }
}
