//! A recording made by hand, event by event.

use std::sync::Arc;

use tlbcore::machine::MachineConfig;
use tlbcore::program::CompiledKernel;
use tlbcore::replay::{FlushSize, Replayed, replay};
use tlbcore::trace::kinds::{TASK_IDLE, TASK_OTHER};
use tlbcore::trace::{Event, EventKind, Flush, FlushKind, Meta, Recording, TaskInfo};

pub const PAGE: u64 = 4096;
pub const BASE: u64 = 0x7f00_0000_0000;
pub const IDLE: u32 = TASK_IDLE;
pub const OTHER: u32 = TASK_OTHER;
/// Error codes of faults: in user mode, and besides that with the entry present, by a write.
pub const READ: u64 = 4;
pub const WRITE: u64 = 4 | 2;
pub const WRITE_PRESENT: u64 = 4 | 2 | 1;
/// Flags of mmap.
pub const PRIVATE: u64 = 2;
pub const ANON: u64 = 2 | 0x20;

pub const KERNELS: [(&str, &str); 4] = [
    ("linux-5.10", include_str!("../data/linux-5.10.json")),
    ("linux-6.1", include_str!("../data/linux-6.1.json")),
    ("linux-6.18", include_str!("../data/linux-6.18.json")),
    ("consolidated", include_str!("../data/consolidated.json")),
];

pub fn kernel(name: &str) -> Arc<CompiledKernel> {
    let json = KERNELS.iter().find(|kernel| kernel.0 == name).expect("one of the four").1;
    Arc::new(CompiledKernel::from_json(json).unwrap())
}

pub fn config() -> MachineConfig {
    MachineConfig { nr_cpus: 2, levels: 4, pcid: true, ..MachineConfig::default() }
}

/// A recording under construction. Times are the caller's, in nanoseconds.
pub struct Tape(pub Recording);

impl Tape {
    /// With one thread for each process id; threads of one id share an address space.
    pub fn new(pids: &[u32]) -> Self {
        let task = |(index, &pid): (usize, &u32)| TaskInfo { tid: 100 + index as u32, pid, comm: "t".to_owned() };
        Self(Recording {
            meta: Meta { source: "perf".to_owned(), file: "by hand".to_owned(), smp: 2, ..Meta::default() },
            tasks: pids.iter().enumerate().map(task).collect(),
            names: vec!["a name".to_owned()],
            ..Recording::default()
        })
    }

    /// Adds an event; tells its row.
    pub fn push(&mut self, event: Event) -> usize {
        self.0.events.push(event);
        self.0.events.len() - 1
    }

    pub fn event(&mut self, kind: EventKind, time_ns: u64, cpu: u16, task: u32, args: &[u64]) -> usize {
        self.push(Event::new(kind, time_ns, cpu, task).with_args(args))
    }

    /// A call that takes 10 ns.
    pub fn call(&mut self, kind: EventKind, time_ns: u64, cpu: u16, task: u32, args: &[u64], ret: u64) -> usize {
        self.long_call(kind, time_ns..time_ns + 10, cpu, task, args, ret)
    }

    pub fn long_call(
        &mut self,
        kind: EventKind,
        times: std::ops::Range<u64>,
        cpu: u16,
        task: u32,
        args: &[u64],
        ret: u64,
    ) -> usize {
        let event = Event::new(kind, times.start, cpu, task).with_args(args);
        self.push(Event { end_ns: times.end, ret: ret.cast_signed(), ..event })
    }

    /// A private mapping with all rights; the file is known by its descriptor.
    pub fn mmap(&mut self, time_ns: u64, cpu: u16, task: u32, addr: u64, nr_pages: u64, flags: u64) -> usize {
        self.call(EventKind::Mmap, time_ns, cpu, task, &[0, nr_pages * PAGE, 7, flags, 3, 0], addr)
    }

    pub fn munmap(&mut self, time_ns: u64, cpu: u16, task: u32, addr: u64, nr_pages: u64) -> usize {
        self.call(EventKind::Munmap, time_ns, cpu, task, &[addr, nr_pages * PAGE], 0)
    }

    pub fn fault(&mut self, time_ns: u64, cpu: u16, task: u32, addr: u64, error_code: u64) -> usize {
        self.event(EventKind::Fault, time_ns, cpu, task, &[addr, error_code, 0, u64::MAX, u64::MAX])
    }

    pub fn switch(&mut self, time_ns: u64, cpu: u16, from: u32, to: u32) -> usize {
        self.event(EventKind::Switch, time_ns, cpu, from, &[u64::from(to), u64::from(b'S'), 0])
    }

    /// Two threads of one process run on CPUs 0 and 1.
    pub fn two_threads(&mut self) {
        self.switch(1, 0, IDLE, 0);
        self.switch(2, 1, IDLE, 1);
    }

    /// A mapping of one page, written to.
    pub fn page(&mut self, time_ns: u64, cpu: u16, task: u32, addr: u64) {
        self.mmap(time_ns, cpu, task, addr, 1, ANON);
        self.fault(time_ns + 50, cpu, task, addr, WRITE);
    }

    /// What tells how long an IPI takes: one that was sent and one that was obeyed.
    pub fn ipi_takes(&mut self, latency_ns: u64) {
        let event = Flush { reason: 4, pages: 1, request: 0, ..Flush::new(FlushKind::TlbFlushEvent, 0, 0, 0) };
        self.0.flushes.push(event);
        self.0.flushes.push(Flush { reason: 1, time_ns: latency_ns, cpu: 1, ..event });
    }

    pub fn play(&self, name: &str) -> Replayed {
        replay(&self.0, &kernel(name), &config(), false, &mut || false).unwrap()
    }
}

/// The flushes of an event: strides (-1: everything), and whether other CPUs were in the mask.
pub fn flushes(replayed: &Replayed, row: usize) -> Vec<(i64, bool)> {
    let of_row = replayed.predicted.iter().filter(|flush| flush.op_event == row);
    of_row.map(|flush| (FlushSize::pages(flush.requested), flush.remote)).collect()
}

/// How often something was assumed.
pub fn note(replayed: &Replayed, name: &str) -> u64 {
    replayed.notes.get(name).copied().unwrap_or(0)
}
