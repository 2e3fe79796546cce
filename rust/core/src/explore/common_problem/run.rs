//! The common problem from its options to its verdict, for callers that know the size at run time only.

use std::time::Duration;

use super::{Options, Visitor, with_model};
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
    with_model(options, Run { reductions, threads, to_first, control })?
}

struct Run<'a, 'b> {
    reductions: Reductions,
    threads: usize,
    to_first: bool,
    control: &'a mut Control<'b>,
}

impl Visitor for Run<'_, '_> {
    type Output = Result<Report>;

    fn visit<M: Model>(self, model: &M) -> Result<Report> {
        let Self { reductions, threads, to_first, control } = self;
        let mut report = Report { plain: None, saturated: None, trace: Vec::new() };
        if reductions.saturate {
            let outcome =
                saturate(model, reductions, to_first, control).map_err(|reason| Error::Value(reason.to_string()))?;
            if outcome.violations != 0 {
                report.plain = Some(search(model, reductions.for_witness(), threads, true, control));
            }
            report.saturated = Some(outcome);
        } else {
            report.plain = Some(search(model, reductions, threads, to_first, control));
        }
        let path = report.finding().and_then(|finding| finding.path.clone());
        if let Some((mut state, steps)) = path.and_then(|path| follow(model, &path)) {
            for step in steps {
                report.trace.push(model.describe(&state, step.action));
                state = step.state;
            }
        }
        Ok(report)
    }
}
