//! A counterexample with fewer changes between CPUs: neighbours that can change places do.

use super::model::KernelModel;
use super::search::{Action, Model, follow};

/// A step of a path, as far as its place matters.
#[derive(Clone, Copy)]
struct Step {
    action: Action,
    cpu: usize,
    hardware: bool,
}

/// The same steps in another order that can be taken as well and ends in the same violation, its last step the same.
///
/// What counts first are turns, runs of steps of one CPU with those of the hardware left out; then runs with these.
pub(super) fn tidy<const W: usize>(model: &KernelModel<W>, path: &[Action]) -> Vec<Action> {
    let actions = |steps: &[Step]| steps.iter().map(|step| step.action).collect::<Vec<_>>();
    let violation = |path: &[Action]| {
        follow(model, path).and_then(|(_, steps)| steps.last().map(|step| model.violations(&step.state)))
    };
    let wanted = violation(path);
    let Some((mut state, taken)) = follow(model, path) else { return path.to_vec() };
    let mut best = Vec::with_capacity(path.len());
    for step in taken {
        let hardware = model.event(&state, step.action).hardware;
        best.push(Step { action: step.action, cpu: model.cpu_of(step.action), hardware });
        state = step.state;
    }
    if wanted.is_none() || best.len() != path.len() {
        return path.to_vec();
    }
    let mut improved = true;
    while improved {
        improved = false;
        for order in joined(&best).into_iter().chain(moved(best.len())) {
            let order: Vec<Step> = order.into_iter().map(|at| best[at]).collect();
            if cost(&order) < cost(&best) && violation(&actions(&order)) == wanted {
                best = order;
                improved = true;
                break;
            }
        }
    }
    actions(&best)
}

/// Turns, and runs of one CPU with its hardware.
fn cost(steps: &[Step]) -> (usize, usize) {
    let runs = |cpus: &mut dyn Iterator<Item = usize>| {
        let mut last = None;
        cpus.filter(|&cpu| last.replace(cpu) != Some(cpu)).count()
    };
    let turns = runs(&mut steps.iter().filter(|step| !step.hardware).map(|step| step.cpu));
    (turns, runs(&mut steps.iter().map(|step| step.cpu)))
}

/// Orders in which the end of a run goes to the next run of its CPU, or the beginning of one to the run before.
fn joined(steps: &[Step]) -> Vec<Vec<usize>> {
    let last = steps.len().saturating_sub(1);
    let cpu = |at: usize| steps[at].cpu;
    let begins = |at: usize| at == 0 || cpu(at - 1) != cpu(at);
    let ends = |at: usize| at == last || cpu(at + 1) != cpu(at);
    let mut orders = Vec::new();
    for at in 0..last {
        let end = (at..last).find(|&end| ends(end)).unwrap_or(last);
        if let Some(next) = (end + 1..=last).find(|&next| end < last && cpu(next) == cpu(at)) {
            let mut order: Vec<usize> = (0..=last).collect();
            order[at..next].rotate_left(end + 1 - at);
            orders.push(order);
        }
        let begin = (0..=at).rev().find(|&begin| begins(begin)).unwrap_or(0);
        if let Some(before) = (0..begin).rev().find(|&before| cpu(before) == cpu(at)) {
            let mut order: Vec<usize> = (0..=last).collect();
            order[before + 1..=at].rotate_right(at + 1 - begin);
            orders.push(order);
        }
    }
    orders
}

/// Orders in which one step, but the last, is elsewhere.
fn moved(count: usize) -> impl Iterator<Item = Vec<usize>> {
    let last = count.saturating_sub(1);
    (0..last).flat_map(move |from| {
        (0..last).filter(move |&to| to != from).map(move |to| {
            let mut order: Vec<usize> = (0..=last).collect();
            order.remove(from);
            order.insert(to, from);
            order
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(cpus: &[usize], hardware: &[usize]) -> Vec<Step> {
        let step = |(at, &cpu)| Step { action: Action(at as u32), cpu, hardware: hardware.contains(&cpu) };
        cpus.iter().enumerate().map(step).collect()
    }

    #[test]
    fn the_hardware_takes_no_turn() {
        assert_eq!(cost(&steps(&[0, 0, 1, 0, 2, 2], &[])), (4, 4));
        assert_eq!(cost(&steps(&[0, 0, 1, 0, 2, 2], &[1])), (2, 4));
        assert_eq!(cost(&[]), (0, 0));
    }

    #[test]
    fn ends_and_beginnings_of_runs_join_the_next_of_their_cpu() {
        let orders = joined(&steps(&[0, 0, 1, 1, 0, 1], &[]));
        for expected in [
            [2, 3, 0, 1, 4, 5], // the first run to the third
            [0, 2, 3, 1, 4, 5], // its end alone
            [0, 1, 4, 2, 3, 5], // the third run to the first; or the second to the last, which is the same
        ] {
            assert!(orders.iter().any(|order| *order == expected), "{expected:?} in {orders:?}");
        }
        assert!(orders.iter().all(|order| order[5] == 5), "the last step stays");
        assert!(orders.iter().all(|order| {
            let of = |cpu| order.iter().filter(move |&&at| [0, 0, 1, 1, 0, 1][at] == cpu);
            of(0).is_sorted() && of(1).is_sorted()
        }));
    }

    #[test]
    fn one_step_goes_everywhere_but_behind_the_last() {
        let orders: Vec<_> = moved(3).collect();
        assert_eq!(orders, [[1, 0, 2], [1, 0, 2]]);
    }
}
