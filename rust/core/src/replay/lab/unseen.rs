//! Address spaces that a CPU loaded and that no switch of the recording shows.
//!
//! The lab records switches from and to the scenario's tasks; what an idle CPU ran in between is not recorded, but the
//! flush that the tracepoint shows of such a switch is (reason 0). It stands with the latest record of its CPU that could
//! have led to it: a switch to idle, which flushes nothing by itself, or a `func`, although its CPU was not lazy and could not
//! leave the address space. Either way the CPU loaded another address space after its next switch to idle.
//!
//! This steers the model's state only, as a recorded switch does: what the lab recorded stays as it is, also where it
//! shows the flush of a later switch with a request.

use rustc_hash::{FxHashMap, FxHashSet};

use super::runner::is_since;
use crate::cpumask::CpuId;
use crate::error::Result;
use crate::machine::Operation;
use crate::replay::driver::Driver;
use crate::trace::kinds::{TASK_IDLE, TASK_KTHREAD, TASK_OTHER};
use crate::trace::{Event, EventKind, FlushKind, Recording};

/// What flush records show of switches that were not recorded.
#[derive(Default)]
pub(in crate::replay) struct Unseen {
    /// Rows of switches to idle after which the CPU loaded another address space.
    switches: FxHashSet<usize>,
    /// By row of an event: address space, mask and time in ns of its last request, where the kernel clears masks eagerly.
    masks: FxHashMap<usize, (u32, u64, u64)>,
}

/// What runs on a CPU, as far as switches show it.
#[derive(Clone, Copy, Default)]
struct Running {
    /// A task of the recording.
    ours: bool,
    /// A `func` record of this CPU was followed by the flush of a later switch.
    owes_visit: bool,
    /// It left its address space since the last switch.
    has_left: bool,
}

impl Unseen {
    pub(in crate::replay) fn of(recording: &Recording) -> Self {
        let (events, flushes) = (&recording.events, &recording.flushes);
        let mut order: Vec<(u64, bool, usize)> = (0..events.len())
            .filter(|&row| events.kind[row] == EventKind::Switch.number())
            .map(|row| (events.time_ns[row], true, row))
            .chain((0..flushes.len()).map(|row| (flushes.time_ns[row], false, row)))
            .collect();
        order.sort_unstable();
        let mut found = Self::default();
        let is_eager = !is_since(recording.meta.kernel.as_deref().unwrap_or_default(), (6, 14));
        let mut cpus: FxHashMap<u16, Running> = FxHashMap::default();
        let mut ending: FxHashSet<u32> = FxHashSet::default();
        for (_, is_switch, row) in order {
            if is_switch {
                let cpu = cpus.entry(events.cpu[row]).or_default();
                let idles = is_kernel(events.a0[row]);
                if std::mem::take(&mut cpu.owes_visit) && idles {
                    found.switches.insert(row);
                }
                *cpu = Running { ours: !idles && events.a0[row] != u64::from(TASK_OTHER), ..Running::default() };
                continue;
            }
            let flush = flushes.get(row);
            match FlushKind::from_number(flush.kind) {
                Some(FlushKind::MmRange) if is_eager => {
                    if let Ok(cause) = usize::try_from(flush.op_event) {
                        found.masks.insert(cause, (flush.mm, flush.mask, flush.time_ns));
                    }
                }
                Some(FlushKind::ExitMmap) => {
                    ending.insert(flush.mm);
                }
                Some(FlushKind::TlbFlushEvent) if flush.reason == 0 => {
                    let switch = usize::try_from(flush.op_event).ok();
                    // A task that ended has let go of its address space before.
                    let ended = |row: usize| [b'X', b'Z'].map(u64::from).contains(&events.a1[row]);
                    found.switches.extend(switch.filter(|&row| {
                        events.kind[row] == EventKind::Switch.number() && is_kernel(events.a0[row]) && !ended(row)
                    }));
                }
                Some(FlushKind::Func) if flush.reason == 0 && !ending.contains(&flush.mm) => {
                    let Some(cpu) = cpus.get_mut(&flush.cpu) else { continue };
                    if cpu.ours || cpu.has_left {
                        cpu.owes_visit = cpu.ours;
                    }
                    cpu.has_left = true;
                }
                _ => {}
            }
        }
        found
    }
}

fn is_kernel(next: u64) -> bool {
    next == u64::from(TASK_IDLE) || next == u64::from(TASK_KTHREAD)
}

impl Driver<'_> {
    /// After a switch to idle the CPU may have loaded another address space.
    pub(in crate::replay) fn visit_unseen(&mut self, row: usize, event: &Event) -> Result<()> {
        if !self.lab.as_ref().is_some_and(|lab| lab.unseen.switches.contains(&row)) {
            return Ok(());
        }
        self.note("switch to another address space that only its flush shows");
        self.visit_foreign(event.cpu)
    }

    /// After an event whose flushes were predicted: an idle CPU that its last request did not find in the mask any more has
    /// loaded another address space since it was last seen. The prediction stands as it is.
    pub(in crate::replay) fn follow_idle(&mut self, row: usize) -> Result<()> {
        let known = self.lab.as_ref().and_then(|lab| lab.unseen.masks.get(&row).copied());
        let Some((number, mask, time_ns)) = known else { return Ok(()) };
        let Some(mm) = self.lab_mm(number.into(), time_ns) else { return Ok(()) };
        let events = &self.recording.events;
        // A flush that nothing else claims belongs to the task's latest fault, however long after.
        let next = (row + 1..events.len()).find(|&later| events.task[later] == events.task[row]);
        if events.end_ns[row] < time_ns && next.is_none_or(|next| events.time_ns[next] < time_ns) {
            return Ok(());
        }
        let switched: FxHashSet<u16> = (row..events.len())
            .take_while(|&later| events.time_ns[later] <= time_ns)
            .filter(|&later| events.kind[later] == EventKind::Switch.number())
            .map(|later| events.cpu[later])
            .collect();
        let is_gone = |cpu: &CpuId| {
            let is_idle = self.machine.cpu(*cpu).is_some_and(|cpu| cpu.curr.is_none());
            is_idle && mask.checked_shr(cpu.0.into()).is_some_and(|bits| bits & 1 == 0) && !switched.contains(&cpu.0)
        };
        let gone: Vec<CpuId> = self.machine.engine().mm_cpumask(mm).iter().filter(is_gone).collect();
        for cpu in gone {
            self.note("idle CPU found to have left mm_cpumask, corrected");
            self.visit_foreign(cpu.0)?;
            self.discard_log();
        }
        Ok(())
    }

    /// Whatever ran on an idle CPU, and left it idle.
    fn visit_foreign(&mut self, cpu: u16) -> Result<()> {
        let foreign = self.foreign(cpu)?;
        for task in [Some(foreign), None] {
            self.run(&Operation::Schedule { cpu: cpu.into(), task })?;
        }
        Ok(())
    }
}
