//! Events that have nothing to do with each other: processes that share no CPU, no address space and no ancestor.
//!
//! What one group does, another cannot notice: translations and lazy address spaces are a CPU's, pages and page tables
//! come from an ancestor or from the process itself. So each group can be replayed on a machine of its own, on a thread of
//! its own, and gives what it gives in a replay of the whole. What a replay measures in the recording beforehand (how
//! long IPIs take, who waited for whom) is measured in the whole, once.

use super::calls::MADV_COLLAPSE;
use crate::trace::{EventKind, Recording};

/// Which events belong together. All events of a CPU do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Groups {
    /// By CPU: the number of its group; groups are numbered by their first event.
    of_cpu: Vec<u32>,
    /// By group: its events.
    pub(super) nr_events: Vec<usize>,
}

impl Groups {
    /// The rows of a group, ascending.
    pub(super) fn rows<'a>(&'a self, recording: &'a Recording, group: usize) -> impl Iterator<Item = usize> + 'a {
        let is_of = move |cpu: u16| self.of_cpu[usize::from(cpu)] as usize == group;
        recording.events.cpu.iter().enumerate().filter(move |&(_, &cpu)| is_of(cpu)).map(|(row, _)| row)
    }
}

/// The groups of a recording. One if it cannot be taken apart: when time goes back in it, or there are events of scenarios
/// in it, whose files have names that all processes know, and whose reclaim takes pages from whoever has them. Nor where a
/// task that stands for many did something but switch, nor where a call put the pages that wait on any CPU on the LRU
/// (mm/khugepaged.c:`madvise_collapse` drains them all).
pub(super) fn groups(recording: &Recording) -> Groups {
    let events = &recording.events;
    let nr_tasks = recording.tasks.len();
    let nr_cpus = events.cpu.iter().max().map_or(0, |&cpu| usize::from(cpu) + 1);
    let holds_together = |row: usize| match EventKind::from_number(events.kind[row]) {
        Some(EventKind::Switch | EventKind::MigrateTask) => false,
        Some(EventKind::Madvise) if events.a2[row] == MADV_COLLAPSE => true,
        Some(kind) => of_scenario(kind) || events.task[row] as usize >= nr_tasks,
        None => true,
    };
    let is_of_perf = recording.meta.source == "perf" && events.time_ns.is_sorted();
    if !is_of_perf || (0..events.len()).any(holds_together) {
        return Groups { of_cpu: vec![0; nr_cpus], nr_events: vec![events.len()] };
    }
    let mut sets = Sets((0..(nr_cpus + nr_tasks) as u32).collect());
    let of_task = |task: u64| usize::try_from(task).ok().filter(|&task| task < nr_tasks).map(|task| nr_cpus + task);
    // Threads of a process, whatever they ran on.
    let mut of_pid = rustc_hash::FxHashMap::default();
    for (task, info) in recording.tasks.iter().enumerate() {
        let first = *of_pid.entry(info.pid).or_insert(task);
        sets.join(nr_cpus + first, nr_cpus + task);
    }
    for row in 0..events.len() {
        let cpu = usize::from(events.cpu[row]);
        let other = match EventKind::from_number(events.kind[row]) {
            Some(EventKind::Switch | EventKind::ProcessFork) => of_task(events.a0[row]),
            Some(EventKind::Fork) => of_task(events.a5[row]),
            _ => None,
        };
        for task in [of_task(events.task[row].into()), other].into_iter().flatten() {
            sets.join(cpu, task);
        }
    }
    let mut of_cpu = vec![u32::MAX; nr_cpus];
    let mut nr_events: Vec<usize> = Vec::new();
    for &cpu in events.cpu.iter() {
        // Every set of an event has a CPU, and the lowest member stands for a set.
        let root = sets.find(usize::from(cpu));
        if of_cpu[root] == u32::MAX {
            of_cpu[root] = nr_events.len() as u32;
            nr_events.push(0);
        }
        of_cpu[usize::from(cpu)] = of_cpu[root];
        nr_events[of_cpu[root] as usize] += 1;
    }
    Groups { of_cpu, nr_events }
}

/// Whether an event is one that perf does not record.
const fn of_scenario(kind: EventKind) -> bool {
    use EventKind as K;
    let is_recorded = kind.is_call()
        || matches!(
            kind,
            K::Fault
                | K::Switch
                | K::MigrateTask
                | K::ProcessFork
                | K::TaskStart
                | K::Exec
                | K::Exit
                | K::ExitCall
                | K::ExitGroup
        );
    !is_recorded
}

/// Disjoint sets of numbers; each is represented by its lowest member.
struct Sets(Vec<u32>);

impl Sets {
    fn find(&mut self, mut member: usize) -> usize {
        while self.0[member] as usize != member {
            let above = self.0[member] as usize;
            self.0[member] = self.0[above];
            member = above;
        }
        member
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b) as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Event, Meta, TaskInfo};

    fn recording(rows: &[(u64, u16, u32, Option<u64>)]) -> Recording {
        let task = |tid: u32| TaskInfo { tid, pid: [1, 1, 2, 3][tid as usize], comm: "t".to_owned() };
        let mut recording = Recording {
            meta: Meta { source: "perf".to_owned(), ..Meta::default() },
            tasks: (0..4).map(task).collect(),
            ..Recording::default()
        };
        for &(time_ns, cpu, task, next) in rows {
            let kind = if next.is_some() { EventKind::Switch } else { EventKind::Fault };
            recording.events.push(Event::new(kind, time_ns, cpu, task).with_args(&[next.unwrap_or(2)]));
        }
        recording
    }

    fn rows(recording: &Recording) -> Vec<Vec<usize>> {
        let groups = groups(recording);
        let rows: Vec<Vec<usize>> =
            (0..groups.nr_events.len()).map(|group| groups.rows(recording, group).collect()).collect();
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), groups.nr_events);
        rows
    }

    #[test]
    fn threads_cpus_and_switches_hold_together() {
        let apart = recording(&[(1, 0, 0, None), (2, 1, 2, None), (3, 2, 1, None), (4, 3, 3, None)]);
        assert_eq!(rows(&apart), [vec![0, 2], vec![1], vec![3]], "tasks 0 and 1 are one process");
        let switched = recording(&[(1, 0, 0, None), (2, 1, 2, None), (3, 0, 0, Some(3)), (4, 3, 3, None)]);
        assert_eq!(rows(&switched), [vec![0, 2, 3], vec![1]]);
    }

    #[test]
    fn what_cannot_be_told_apart_stays_whole() {
        let mut back = recording(&[(2, 0, 0, None), (1, 1, 2, None)]);
        assert_eq!(rows(&back), [vec![0, 1]], "time goes back");
        back.events.time_ns.to_mut()[1] = 3;
        assert_eq!(rows(&back).len(), 2);
        back.events.kind.to_mut()[1] = EventKind::ReclaimPage.number();
        assert_eq!(rows(&back).len(), 1, "reclaim takes pages from whoever has them");
        back.events.kind.to_mut()[1] = EventKind::Madvise.number();
        assert_eq!(rows(&back).len(), 2);
        back.events.a2.to_mut()[1] = MADV_COLLAPSE;
        assert_eq!(rows(&back).len(), 1, "it empties what waits on every CPU");
        back.events.kind.to_mut()[1] = EventKind::Fault.number();
        back.events.task.to_mut()[1] = crate::trace::kinds::TASK_OTHER;
        assert_eq!(rows(&back).len(), 1, "that may be any task");
        back.events.kind.to_mut()[1] = EventKind::Switch.number();
        assert_eq!(rows(&back).len(), 2);
        back.meta.source = "lab".to_owned();
        assert_eq!(rows(&back).len(), 1);
        assert_eq!(rows(&recording(&[])), [[0; 0]; 0]);
    }
}
