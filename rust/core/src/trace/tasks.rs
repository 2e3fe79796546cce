//! Threads and names while a recording is imported.
//!
//! Contract: an importer counts tasks in order of appearance, foreign ones included; [`TaskTable::finish`] keeps those
//! that belong to the recording, in that order, and gives the reserved index of every other: idle, kernel thread (a
//! guess by name, because recordings do not tell) or other user task.

use rustc_hash::FxHashMap;

use super::events::TaskInfo;
use super::kinds::{NO_VALUE, TASK_IDLE, TASK_KTHREAD, TASK_OTHER};

/// Beginnings of the names of kernel threads that switch often.
const KTHREAD_NAMES: &[&str] = &[
    "cpuhp/",
    "ext4-",
    "ext4lazyinit",
    "idle_inject/",
    "irq/",
    "jbd2/",
    "kauditd",
    "kblockd",
    "kcompactd",
    "kdamond.",
    "khugepaged",
    "khungtaskd",
    "ksmd",
    "ksoftirqd/",
    "kswapd",
    "kthreadd",
    "kworker/",
    "migration/",
    "oom_reaper",
    "rcu_",
    "rcub/",
    "rcuc/",
    "rcuog/",
    "rcuop/",
    "rcuos/",
    "scsi_eh_",
    "swapper",
    "watchdogd",
    "xfsaild/",
];

/// Whether a task of that name is likely a kernel thread.
pub(super) fn is_kthread_name(comm: &[u8]) -> bool {
    KTHREAD_NAMES.iter().any(|name| comm.starts_with(name.as_bytes()))
}

/// Texts that events refer to by index.
#[derive(Default)]
pub(super) struct Names {
    names: Vec<String>,
    index: FxHashMap<Vec<u8>, u64>,
}

impl Names {
    pub(super) fn intern(&mut self, name: &[u8]) -> u64 {
        if let Some(&index) = self.index.get(name) {
            return index;
        }
        let index = self.names.len() as u64;
        self.names.push(String::from_utf8_lossy(name).into_owned());
        self.index.insert(name.to_vec(), index);
        index
    }

    pub(super) fn finish(self) -> Vec<String> {
        self.names
    }
}

/// A thread as far as it is known by now.
pub(super) struct Task {
    pub tid: u32,
    pub pid: Option<u32>,
    pub comm: Vec<u8>,
    /// It did something itself, so that it belongs to the recording.
    pub own: bool,
    /// It called exec or exited since it was made: a parent that waited for that was in vfork.
    pub released_parent: bool,
}

/// All threads seen, by order of appearance.
#[derive(Default)]
pub(super) struct TaskTable {
    tasks: Vec<Task>,
    by_tid: FxHashMap<u32, u32>,
}

impl TaskTable {
    /// The number of the thread that has this id now.
    pub(super) fn of_tid(&mut self, tid: u32, comm: &[u8]) -> u32 {
        if let Some(&number) = self.by_tid.get(&tid) {
            return number;
        }
        self.make(tid, comm)
    }

    /// A new thread; if the id was in use, it belongs to this one now.
    pub(super) fn make(&mut self, tid: u32, comm: &[u8]) -> u32 {
        let number = self.tasks.len() as u32;
        self.tasks.push(Task { tid, pid: None, comm: comm.to_vec(), own: false, released_parent: false });
        self.by_tid.insert(tid, number);
        number
    }

    /// The thread is gone: its id may come back for another.
    pub(super) fn forget(&mut self, number: u32) {
        let tid = self.tasks[number as usize].tid;
        if self.by_tid.get(&tid) == Some(&number) {
            self.by_tid.remove(&tid);
        }
    }

    pub(super) fn get(&self, number: u32) -> &Task {
        &self.tasks[number as usize]
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Task {
        &mut self.tasks[number as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// The threads of the recording, for each number its index or reserved index, and how many distinct names were taken
    /// for kernel threads.
    pub(super) fn finish(self) -> (Vec<TaskInfo>, Vec<u32>, u64) {
        let mut kept = Vec::new();
        let mut index = Vec::with_capacity(self.tasks.len());
        let mut kthreads: Vec<&[u8]> = Vec::new();
        for task in &self.tasks {
            index.push(if task.tid == 0 {
                TASK_IDLE
            } else if task.own {
                let comm = String::from_utf8_lossy(&task.comm).into_owned();
                kept.push(TaskInfo { tid: task.tid, pid: task.pid.unwrap_or(task.tid), comm });
                kept.len() as u32 - 1
            } else if is_kthread_name(&task.comm) {
                kthreads.push(&task.comm);
                TASK_KTHREAD
            } else {
                TASK_OTHER
            });
        }
        kthreads.sort_unstable();
        kthreads.dedup();
        let nr_kthread_names = kthreads.len() as u64;
        (kept, index, nr_kthread_names)
    }
}

/// The final index for an argument that holds a task's number.
pub(super) fn renumber(index: &[u32], number: u64) -> u64 {
    if number == NO_VALUE { NO_VALUE } else { index[number as usize].into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_tasks_keep_their_order_and_others_get_reserved_indices() {
        let mut table = TaskTable::default();
        for (tid, comm) in [(0, "swapper/0"), (9, "m"), (20, "kworker/0:1"), (21, "cc1"), (10, "m")] {
            table.of_tid(tid, comm.as_bytes());
        }
        for number in [1, 4] {
            table.get_mut(number).own = true;
        }
        table.forget(1);
        assert_eq!(table.of_tid(9, b"again"), 5, "an id that was given back is another task");
        let (kept, index, nr_kthread_names) = table.finish();
        assert_eq!(kept.iter().map(|task| task.tid).collect::<Vec<_>>(), [9, 10]);
        assert_eq!(index, [TASK_IDLE, 0, TASK_KTHREAD, TASK_OTHER, 1, TASK_OTHER]);
        assert_eq!(nr_kthread_names, 1);
    }
}
