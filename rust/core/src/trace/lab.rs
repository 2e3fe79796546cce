//! Importer of the kernel lab's records (`.jsonl`): events and the kernel's own account of every flush.
//!
//! Contract: calls, faults, switches, steps become events; what was probed inside the kernel's flush code becomes flush
//! records; `unmap_one` becomes an event, because which page reclaim takes is an input. A step's text gives further events
//! (accesses, modes, files) in front of the calls and faults it led to. A fault record that stands for n faults becomes n
//! events. Record kinds that are not known are counted. Times are an emulator's: order only.

use rustc_hash::{FxHashMap, FxHashSet};

use super::attribute::Doing;
use super::events::{Event, EventColumns, Flush, FlushColumns, Meta, Recording, RunnerImage, TaskInfo, row_number};
use super::kinds::{
    ALL_PAGES, Attribution, ENTER_UNSEEN, EXIT_UNSEEN, EventKind, FAILED, FlushKind, NO_VALUE, SHARES_MM, TASK_IDLE,
    TASK_KTHREAD, TASK_OTHER, THREAD,
};
use super::lab_record::{LabMeta, Record, syscall_nr};
use super::scn_op::Op;
use super::tasks::{Names, is_kthread_name};
use super::text::{self, Lines};
use crate::addr::PAGE_SIZE;
use crate::error::Result;

/// Counts in a recording that the laboratory of this repository made, whose runner is another program.
pub(crate) const OWN_RUNNER: &str = "runner_of_this_repository";
/// Pages of a region: a record that says more is damaged.
const MAX_FAULTS: u64 = 1 << 20;
const ERROR_USER: u64 = 4;

/// Reads all lines.
pub(super) fn import(mut lines: Lines) -> Result<Recording> {
    let mut importer = Importer::new(lines.base_name());
    let mut has_meta = false;
    while let Some(line) = lines.next()? {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let outcome = if has_meta { importer.line(line) } else { importer.meta_line(line) };
        has_meta = true;
        if let Err(expected) = outcome {
            let found = text::excerpt(line);
            return Err(lines.error(&found, &expected));
        }
    }
    if !importer.meta.counts.contains_key("end_markers") {
        return Err(lines.error("the end of the file", "a record of kind END: the records are cut"));
    }
    importer.meta.nr_lines = lines.nr_line();
    Ok(importer.finish())
}

/// What a line was expected to be.
type Outcome = std::result::Result<(), String>;

/// The record that opened a request.
#[derive(Clone, Copy)]
struct Request {
    row: usize,
    mm: u32,
}

struct Importer {
    meta: Meta,
    tasks: Vec<TaskInfo>,
    by_actor: FxHashMap<String, u32>,
    kthreads: FxHashSet<String>,
    names: Names,
    events: EventColumns,
    flushes: FlushColumns,
    /// By task index.
    doing: Vec<Doing>,
    /// By CPU: the latest `mm_range`, whose generation the next `multi` or own `func` tells.
    open_range: FxHashMap<u16, Request>,
    /// By CPU: row of the latest `batch_flush`.
    open_batch: FxHashMap<u16, usize>,
    by_generation: FxHashMap<(u32, u64), usize>,
    last_ns: u64,
}

impl Importer {
    fn new(file: &str) -> Self {
        let meta = Meta { source: "lab".to_owned(), file: file.to_owned(), ..Meta::default() };
        Self {
            meta,
            tasks: Vec::new(),
            by_actor: FxHashMap::default(),
            kthreads: FxHashSet::default(),
            names: Names::default(),
            events: EventColumns::default(),
            flushes: FlushColumns::default(),
            doing: Vec::new(),
            open_range: FxHashMap::default(),
            open_batch: FxHashMap::default(),
            by_generation: FxHashMap::default(),
            last_ns: 0,
        }
    }

    fn count(&mut self, name: &str) {
        *self.meta.counts.entry(name.to_owned()).or_default() += 1;
    }

    fn meta_line(&mut self, line: &[u8]) -> Outcome {
        let meta = LabMeta::parse(line)?;
        self.meta.kernel = Some(meta.kernel);
        self.meta.smp = meta.smp;
        self.meta.ceiling_pages = Some(meta.ceiling);
        self.meta.levels = match meta.cpu.as_str() {
            "max" => Some(5),
            "qemu64" => Some(4),
            _ => None,
        };
        self.meta.cpu_model = Some(meta.cpu);
        self.meta.pcid = Some(meta.pcid);
        self.meta.thp = Some(meta.thp);
        self.meta.nr_lost_events = meta.lost_events;
        if meta.missing_probes.is_some() {
            self.count(OWN_RUNNER);
        }
        if meta.runner.as_ref().is_some_and(|runner| !runner.is_sound()) {
            return Err(RunnerImage::EXPECTED.to_owned());
        }
        self.meta.runner = meta.runner;
        // The runner of scenarios in a memory cgroup is the only one that asks it to reclaim.
        self.meta.memcg = meta.steps.iter().any(|step| step.contains(" creclaim "));
        let mut actors: Vec<_> = meta.actors.into_iter().collect();
        actors.sort_by_key(|(_, actor)| actor.tid);
        for (name, actor) in actors {
            self.by_actor.insert(name.clone(), self.tasks.len() as u32);
            self.tasks.push(TaskInfo { tid: actor.tid, pid: actor.pid, comm: name });
            self.doing.push(Doing::default());
        }
        Ok(())
    }

    fn task(&mut self, name: &str) -> u32 {
        if let Some(&task) = self.by_actor.get(name) {
            task
        } else if name == "idle" {
            TASK_IDLE
        } else if is_kthread_name(name.as_bytes()) {
            self.kthreads.insert(name.to_owned());
            TASK_KTHREAD
        } else {
            TASK_OTHER
        }
    }

    fn line(&mut self, line: &[u8]) -> Outcome {
        let record = Record::parse(line)?;
        let time_ns = record.t.checked_mul(1000).ok_or("a time in microseconds")?;
        if time_ns < self.last_ns {
            self.count("time_reversals");
        }
        self.last_ns = time_ns;
        let task = record.a.as_deref().map_or(TASK_OTHER, |name| self.task(name));
        let event = |kind| Event::new(kind, time_ns, record.c, task);
        match &*record.k {
            "actor" => {
                self.events.push(event(EventKind::TaskStart));
            }
            "B" => self.begin_step(&record, time_ns, task)?,
            "E" => {
                self.abandon_call(task, time_ns);
                let mut event = event(EventKind::StepEnd)
                    .with_args(&[record.need(record.step, "step")?, record.need(record.it, "it")?]);
                event.ret = record.need(record.rc, "rc")?;
                self.events.push(event);
                self.with_doing(task, Doing::end_step);
            }
            "sys" => self.sys_enter(&record, time_ns, task)?,
            "ret" => self.sys_exit(&record, time_ns, task)?,
            "fault" => self.faults(&record, time_ns, task)?,
            "sw" => self.switch(&record, time_ns)?,
            "unmap_one" => {
                let args = [record.need(record.addr, "addr")?.0, record.mm()?.into(), record.n.unwrap_or(1)];
                self.events.push(event(EventKind::ReclaimPage).with_args(&args));
            }
            "task_exit" => {
                self.end_call(task, time_ns);
                self.exit(&record, time_ns, task, NO_VALUE);
            }
            "END" => self.count("end_markers"),
            "note" => self.count("notes"),
            _ => self.flush_record(&record, time_ns, task)?,
        }
        Ok(())
    }

    fn with_doing(&mut self, task: u32, change: impl FnOnce(&mut Doing)) {
        if let Some(doing) = self.doing.get_mut(task as usize) {
            change(doing);
        }
    }

    /// The task is gone, or begins to take its address space down: in this kernel that comes before the record of its
    /// exit, and the flushes of a task that was killed would belong to nothing otherwise.
    /// `is_last` is 1 if the process is gone with it.
    fn exit(&mut self, record: &Record<'_>, time_ns: u64, task: u32, is_last: u64) {
        if self.doing.get(task as usize).is_some_and(|doing| doing.exit().is_none()) {
            let exit = Event::new(EventKind::Exit, time_ns, record.c, task);
            let row = self.events.push(exit.with_args(&[is_last]));
            self.with_doing(task, |doing| doing.begin_exit(row));
        }
    }

    /// Whether a task that does this may be ending: it made an exit call, or was killed outside every call.
    fn may_exit(&self, doing: &Doing) -> bool {
        let kind = |row: usize| EventKind::from_number(self.events.kind[row]);
        doing.call().is_none_or(|row| matches!(kind(row), Some(EventKind::ExitCall | EventKind::ExitGroup)))
    }

    fn begin_step(&mut self, record: &Record<'_>, time_ns: u64, task: u32) -> Outcome {
        self.abandon_call(task, time_ns);
        let text = record.op.as_deref().ok_or("an `op` in a record of kind B")?;
        let args =
            [record.need(record.step, "step")?, record.need(record.it, "it")?, self.names.intern(text.as_bytes())];
        let row = self.events.push(Event::new(EventKind::StepBegin, time_ns, record.c, task).with_args(&args));
        self.with_doing(task, |doing| doing.begin_step(row));
        let op = Op::parse(text)
            .map_err(|error| format!("a scenario's operation: {}, not {}", error.expected, error.found))?;
        if let Some(event) = op.step_event(time_ns, record.c, task, &mut self.names) {
            self.events.push(event);
        }
        match op {
            Op::Start { name, mode, .. } => {
                let child = self.task(name);
                self.events.push(Event::new(mode.event_kind(), time_ns, record.c, child));
            }
            Op::Wait { name } => {
                let other = self.task(name);
                self.events.push(Event::new(EventKind::Wait, time_ns, record.c, task).with_args(&[other.into()]));
            }
            _ => {}
        }
        Ok(())
    }

    fn sys_enter(&mut self, record: &Record<'_>, time_ns: u64, task: u32) -> Outcome {
        self.abandon_call(task, time_ns);
        let nr = record.name.as_deref().and_then(syscall_nr).ok_or("a known system call in `name`")?;
        let args: Vec<u64> = record.args.iter().flatten().map(|arg| arg.0).collect();
        let kind = EventKind::of_syscall(nr);
        let mut event = Event { nr, ..Event::new(kind, time_ns, record.c, task).with_args(&args) };
        if matches!(kind, EventKind::Fork | EventKind::Exec) {
            event.a5 = NO_VALUE;
        }
        let row = self.events.push(event);
        self.with_doing(task, |doing| doing.enter(row));
        Ok(())
    }

    fn sys_exit(&mut self, record: &Record<'_>, time_ns: u64, task: u32) -> Outcome {
        let nr = record.name.as_deref().and_then(syscall_nr).ok_or("a known system call in `name`")?;
        let ret = record.need(record.rc, "rc")?;
        let open = self.doing.get(task as usize).and_then(Doing::call).filter(|&row| self.events.nr[row] == nr);
        let row = open.unwrap_or_else(|| {
            self.abandon_call(task, time_ns);
            let event = Event::new(EventKind::of_syscall(nr), time_ns, record.c, task);
            self.events.push(Event { nr, flags: ENTER_UNSEEN, a5: NO_VALUE, ..event })
        });
        let mut flags = if (-4095..=-1).contains(&ret) { FAILED } else { 0 };
        if EventKind::of_syscall(nr) == EventKind::Fork
            && let Some(child) = self.tasks.iter().position(|other| i64::from(other.tid) == ret)
        {
            self.events.a5.to_mut()[row] = child as u64;
            let parent_pid = self.tasks.get(task as usize).map(|parent| parent.pid);
            if parent_pid == Some(self.tasks[child].pid) {
                flags |= THREAD | SHARES_MM;
            }
        }
        self.events.ret.to_mut()[row] = ret;
        self.events.end_ns.to_mut()[row] = time_ns.max(self.events.time_ns[row]);
        self.events.flags.to_mut()[row] |= flags;
        self.with_doing(task, Doing::leave);
        Ok(())
    }

    /// A call without a recorded exit (`write` never has one) ends with the task's next own record.
    fn abandon_call(&mut self, task: u32, now_ns: u64) {
        if let Some(row) = self.doing.get(task as usize).and_then(Doing::call) {
            self.events.flags.to_mut()[row] |= EXIT_UNSEEN;
            self.end_call(task, now_ns);
        }
    }

    fn end_call(&mut self, task: u32, now_ns: u64) {
        if let Some(row) = self.doing.get(task as usize).and_then(Doing::call) {
            self.events.end_ns.to_mut()[row] = now_ns.max(self.events.time_ns[row]);
            self.with_doing(task, Doing::leave);
        }
    }

    fn faults(&mut self, record: &Record<'_>, time_ns: u64, task: u32) -> Outcome {
        let error_code = record.need(record.code, "code")?;
        let first = record.need(record.addr, "addr")?.0;
        let nr_faults = record.n.unwrap_or(1);
        if nr_faults > MAX_FAULTS {
            return Err(format!("at most {MAX_FAULTS} faults in one record"));
        }
        if error_code & ERROR_USER != 0 {
            self.abandon_call(task, time_ns);
        }
        let stride = record.st.unwrap_or(1).wrapping_mul(PAGE_SIZE);
        for nth in 0..nr_faults {
            let address = first.wrapping_add(nth.wrapping_mul(stride));
            let event = Event::new(EventKind::Fault, time_ns, record.c, task);
            let row = self.events.push(event.with_args(&[address, error_code, 0, NO_VALUE, NO_VALUE]));
            self.with_doing(task, |doing| doing.begin_fault(row, error_code));
        }
        Ok(())
    }

    fn switch(&mut self, record: &Record<'_>, time_ns: u64) -> Outcome {
        let (Some(prev), Some(next), Some(state)) = (&record.prev, &record.next, &record.state) else {
            return Err("`prev`, `state` and `next` in a record of kind sw".to_owned());
        };
        let (prev, next) = (self.task(prev), self.task(next));
        let &[letter, ref more @ ..] = state.as_bytes() else {
            return Err("a state's letter in `state`".to_owned());
        };
        let args = [next.into(), letter.into(), more.contains(&b'+').into()];
        let row = self.events.push(Event::new(EventKind::Switch, time_ns, record.c, prev).with_args(&args));
        if let Some(exit) = self.doing.get(prev as usize).and_then(Doing::exit)
            && matches!(letter, b'X' | b'Z')
        {
            self.events.end_ns.to_mut()[exit] = time_ns.max(self.events.time_ns[exit]);
        }
        if let Some(pages) = record.flush {
            let mut flush = Flush::new(FlushKind::TlbFlushEvent, time_ns, record.c, prev);
            (flush.reason, flush.pages, flush.end) = (0, pages, if pages == ALL_PAGES { u64::MAX } else { 0 });
            (flush.op_event, flush.attribution) = (row_number(row), Attribution::Switch.number());
            flush.request = row_number(self.flushes.len());
            self.flushes.push(flush);
        }
        Ok(())
    }

    fn flush_record(&mut self, record: &Record<'_>, time_ns: u64, task: u32) -> Outcome {
        let Some(&kind) = FlushKind::ALL.iter().find(|kind| kind.name() == record.k) else {
            *self.meta.unknown_events.entry(record.k.clone().into_owned()).or_default() += 1;
            return Ok(());
        };
        if kind == FlushKind::ExitMmap && self.doing.get(task as usize).is_some_and(|doing| self.may_exit(doing)) {
            self.exit(record, time_ns, task, 1);
        }
        let mut flush = Flush::new(kind, time_ns, record.c, task);
        record.fill(&mut flush)?;
        let row = self.flushes.len();
        match kind {
            FlushKind::MmRange | FlushKind::BatchFlush => {
                let (op_event, how) = self.open_request(task);
                (flush.op_event, flush.attribution, flush.request) = (op_event, how.number(), row_number(row));
                flush.icpu = record.c;
                if kind == FlushKind::MmRange {
                    self.open_range.insert(record.c, Request { row, mm: flush.mm });
                } else {
                    self.open_batch.insert(record.c, row);
                }
            }
            FlushKind::Multi | FlushKind::Func => self.find_request(&mut flush, record),
            _ => {
                let owner = self.doing.get(task as usize).map_or((-1, Attribution::Unknown), Doing::owner);
                (flush.op_event, flush.attribution) = (owner.0, owner.1.number());
                if kind == FlushKind::TlbFlushEvent && flush.reason == 1 {
                    // Received, and the record that would tell for whom was missed.
                    (flush.op_event, flush.attribution) = (-1, Attribution::Unknown.number());
                }
            }
        }
        self.flushes.push(flush);
        Ok(())
    }

    fn open_request(&mut self, task: u32) -> (i64, Attribution) {
        self.doing.get_mut(task as usize).map_or((-1, Attribution::Unknown), Doing::open_request)
    }

    /// The request that a `multi` or `func` carries out: by address space and generation; a batched flush has neither and
    /// goes by the CPU that asked.
    fn find_request(&mut self, flush: &mut Flush, record: &Record<'_>) {
        let batched = record.mm.is_none();
        let found = if batched {
            self.open_batch.get(&flush.icpu).copied()
        } else {
            let key = (flush.mm, flush.tlb_gen);
            let known = self.by_generation.get(&key).copied();
            known.or_else(|| {
                // The first record of a request comes from the CPU that asks and tells the generation.
                let open = self.open_range.get(&record.c).copied()?;
                let fits = flush.icpu == record.c && open.mm == flush.mm && self.flushes.tlb_gen[open.row] == 0;
                fits.then(|| {
                    self.flushes.tlb_gen.to_mut()[open.row] = flush.tlb_gen;
                    self.by_generation.insert(key, open.row);
                    open.row
                })
            })
        };
        let Some(request) = found else { return };
        flush.request = row_number(request);
        flush.op_event = self.flushes.op_event[request];
        let own = flush.icpu == record.c;
        flush.attribution = if own || flush.op_event < 0 {
            self.flushes.attribution[request]
        } else if batched {
            Attribution::Sender.number()
        } else {
            Attribution::Generation.number()
        };
    }

    fn finish(mut self) -> Recording {
        for task in 0..self.tasks.len() as u32 {
            self.abandon_call(task, self.last_ns);
        }
        self.meta.nr_kthread_names = self.kthreads.len() as u64;
        Recording {
            meta: self.meta,
            tasks: self.tasks,
            names: self.names.finish(),
            events: self.events,
            flushes: self.flushes,
        }
    }
}
