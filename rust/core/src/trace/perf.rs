//! Importer of `perf script --ns -F comm,pid,tid,cpu,time,event,trace` text.
//!
//! Contract: enter and exit of a system call become one event, at the place of the enter; an unpaired one is flagged.
//! Known events must parse (else an error with the line); events of other names are counted in `meta.unknown_events`,
//! a call chain becomes the `site` of its call or fault (`callers.rs`). A task belongs to the recording if it did something itself (call, fault, fork, exec,
//! exit); tasks that only appear in switches do not. Which event a flush belongs to: `attribute.rs`.

use super::attribute::{Doing, Send, Senders};
use super::callers::Callers;
use super::events::{Event, EventColumns, Flush, FlushColumns, Meta, Recording, row_number};
use super::kinds::{
    ALL_PAGES, Attribution, ENTER_UNSEEN, EXIT_UNSEEN, EventKind, FAILED, FlushKind, KERNEL_MODE, NO_SITE, NO_VALUE,
    SHARES_MM, THREAD,
};
use super::perf_line::{self, Header, Place};
use super::tasks::{Names, TaskTable, is_kthread_name, renumber};
use super::text::{self, Lines};
use crate::cpumask::NR_CPUS_MAX;
use crate::error::Result;

const CLONE_VM: u64 = 0x100;
const CLONE_THREAD: u64 = 0x1_0000;
const NR_CLONE: i32 = 56;
const NR_FORK: i32 = 57;
const NR_VFORK: i32 = 58;
const NR_EXECVE: i32 = 59;
const NR_CLONE3: i32 = 435;
const ERROR_USER: u64 = 4;

/// Reads all lines.
pub(super) fn import(mut lines: Lines) -> Result<Recording> {
    let mut importer = Importer::new(lines.base_name());
    while let Some(line) = lines.next()? {
        if let Err(expected) = importer.line(line) {
            let found = text::excerpt(line);
            return Err(lines.error(&found, expected));
        }
    }
    if lines.is_cut() {
        return Err(lines.error("the end of the file", "a newline: perf ends each line with one, so this one is cut"));
    }
    importer.meta.nr_lines = lines.nr_line();
    Ok(importer.finish())
}

/// What a line was expected to be.
type Outcome = std::result::Result<(), &'static str>;

struct Importer {
    meta: Meta,
    tasks: TaskTable,
    names: Names,
    events: EventColumns,
    flushes: FlushColumns,
    /// By task number.
    doing: Vec<Doing>,
    /// By task number: the flush row of a request that told others and has not flushed its own CPU yet.
    open_send: Vec<Option<usize>>,
    /// By CPU: the row of its latest switch, if nothing happened there since.
    just_switched: Vec<Option<usize>>,
    senders: Senders,
    callers: Callers,
    last_time_ns: u64,
}

impl Importer {
    fn new(file: &str) -> Self {
        let meta = Meta { source: "perf".to_owned(), file: file.to_owned(), ..Meta::default() };
        Self {
            meta,
            tasks: TaskTable::default(),
            names: Names::default(),
            events: EventColumns::default(),
            flushes: FlushColumns::default(),
            doing: Vec::new(),
            open_send: Vec::new(),
            just_switched: Vec::new(),
            senders: Senders::default(),
            callers: Callers::default(),
            last_time_ns: 0,
        }
    }

    fn count(&mut self, name: &str) {
        *self.meta.counts.entry(name.to_owned()).or_default() += 1;
    }

    fn line(&mut self, line: &[u8]) -> Outcome {
        if line.first() == Some(&b'#') {
            self.comment(line);
            return Ok(());
        }
        let Some(header) = perf_line::parse_header(line) else {
            return self.other_line(line);
        };
        self.end_chain();
        if u32::from(header.cpu) >= NR_CPUS_MAX {
            return Err("a CPU below 8192");
        }
        if header.time_ns < self.last_time_ns {
            self.count("time_reversals");
        }
        self.last_time_ns = header.time_ns;
        let cpu = usize::from(header.cpu);
        if self.just_switched.len() <= cpu {
            self.just_switched.resize(cpu + 1, None);
        }
        let task = self.task_of_line(&header);
        let after_switch = std::mem::take(&mut self.just_switched[cpu]);
        if header.event == b"tlb:tlb_flush" {
            let (pages, reason) = perf_line::tlb_flush(header.payload).ok_or("`pages:N reason:TEXT (0..5)`")?;
            self.tlb_flush(&header, task, after_switch, pages, reason);
            return Ok(());
        }
        self.senders.end(task);
        self.open_send[task as usize] = None;
        self.event(&header, task)
    }

    fn event(&mut self, header: &Header<'_>, task: u32) -> Outcome {
        let payload = header.payload;
        match header.event {
            b"raw_syscalls:sys_enter" => {
                let (nr, args) = perf_line::sys_enter(payload).ok_or("`NR n (six hexadecimal arguments)`")?;
                self.sys_enter(header, task, nr, args);
            }
            b"raw_syscalls:sys_exit" => {
                let (nr, ret) = perf_line::sys_exit(payload).ok_or("`NR n = result`")?;
                self.sys_exit(header, task, nr, ret);
            }
            b"exceptions:page_fault_user" => self.page_fault(header, task, 0)?,
            b"exceptions:page_fault_kernel" => self.page_fault(header, task, KERNEL_MODE)?,
            b"sched:sched_switch" => self.sched_switch(header)?,
            b"sched:sched_migrate_task" => {
                let (comm, tid, from, to) =
                    perf_line::sched_migrate_task(payload).ok_or("`comm=C pid=N prio=N orig_cpu=N dest_cpu=N`")?;
                let task = self.task(tid, comm);
                let event = Event::new(EventKind::MigrateTask, header.time_ns, header.cpu, task);
                self.events.push(event.with_args(&[to, from]));
            }
            b"sched:sched_process_fork" => self.process_fork(header)?,
            b"sched:sched_process_exec" => self.process_exec(header)?,
            b"sched:sched_process_exit" => self.process_exit(header)?,
            other => {
                let name = String::from_utf8_lossy(other).into_owned();
                *self.meta.unknown_events.entry(name).or_default() += 1;
            }
        }
        Ok(())
    }

    /// What perf script writes above the events with `--header`, and what is known of a text of another origin.
    fn comment(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let Some((key, value)) = line.trim_start_matches('#').split_once(':') else {
            return;
        };
        let value = value.trim();
        match key.trim() {
            "os release" => self.meta.kernel = Some(value.to_owned()),
            "cpudesc" => self.meta.cpu_model = Some(value.to_owned()),
            "nrcpus online" => self.meta.smp = value.parse().unwrap_or(0),
            // What `tlbcore record` says of the text of strace, which it writes in this form.
            "recorded by" if value == "strace" => value.clone_into(&mut self.meta.source),
            "assumed" => {
                if let Some((what, count)) = value.rsplit_once(" : ") {
                    *self.meta.counts.entry(what.to_owned()).or_default() += count.parse().unwrap_or(0);
                }
            }
            _ => {}
        }
    }

    /// A line that is no event: blank, of a call chain, or a record of perf itself.
    fn other_line(&mut self, line: &[u8]) -> Outcome {
        let content = line.trim_ascii();
        if content.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(content);
        if let Some(at) = text.find("PERF_RECORD_") {
            let mut words = text[at..].split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            if name == "PERF_RECORD_LOST" {
                self.meta.nr_lost_events += words.last().and_then(|word| word.parse().ok()).unwrap_or(1u64);
            }
            *self.meta.unknown_events.entry(name).or_default() += 1;
            return Ok(());
        }
        let first_word = text.split_whitespace().next().unwrap_or_default();
        if line[0].is_ascii_whitespace() && u64::from_str_radix(first_word, 16).is_ok() {
            self.callers.line(content);
            return Ok(());
        }
        Err(
            "`COMM PID/TID [CPU] SECONDS.NANOSECONDS: EVENT: PAYLOAD` (perf script --ns -F comm,pid,tid,cpu,time,event,trace)",
        )
    }

    fn task(&mut self, tid: u32, comm: &[u8]) -> u32 {
        let task = self.tasks.of_tid(tid, comm);
        self.make_room();
        task
    }

    fn make_room(&mut self) {
        self.doing.resize(self.tasks.len(), Doing::default());
        self.open_send.resize(self.tasks.len(), None);
    }

    /// The task that a line is of; perf prints -1 for one that it has seen exit (only the last switch comes then).
    fn task_of_line(&mut self, header: &Header<'_>) -> u32 {
        let tid = u32::try_from(header.tid)
            .ok()
            .or_else(|| perf_line::sched_switch(header.payload).map(|switch| switch.prev_tid));
        let Some(tid) = tid else {
            self.count("lines_of_unknown_task");
            return self.task(u32::MAX, header.comm);
        };
        let number = self.task(tid, header.comm);
        if i64::from(tid) == header.tid {
            let task = self.tasks.get_mut(number);
            if task.comm != header.comm {
                task.comm = header.comm.to_vec();
            }
            if let Ok(pid) = u32::try_from(header.pid) {
                task.pid = Some(pid);
            }
        }
        number
    }

    fn sys_enter(&mut self, header: &Header<'_>, task: u32, nr: i32, args: [u64; 6]) {
        self.abandon_call(task, header.time_ns);
        self.tasks.get_mut(task).own = true;
        let kind = EventKind::of_syscall(nr);
        let mut event = Event { nr, ..Event::new(kind, header.time_ns, header.cpu, task) }.with_args(&args);
        if matches!(kind, EventKind::Fork | EventKind::Exec) {
            event.a5 = NO_VALUE;
        }
        let row = self.events.push(event);
        self.doing[task as usize].enter(row);
        self.callers.begin(row);
    }

    fn sys_exit(&mut self, header: &Header<'_>, task: u32, nr: i32, ret: i64) {
        self.tasks.get_mut(task).own = true;
        let kind = EventKind::of_syscall(nr);
        let open = self.doing[task as usize].call().filter(|&row| self.events.nr[row] == nr);
        let Some(row) = open else {
            self.abandon_call(task, header.time_ns);
            if kind == EventKind::Fork && ret == 0 {
                // The child's side of a fork: its parent's event stands for both.
                self.count("fork_returns_in_child");
                return;
            }
            let mut event = Event { nr, ret, ..Event::new(kind, header.time_ns, header.cpu, task) };
            event.flags = ENTER_UNSEEN | failed(ret);
            if matches!(kind, EventKind::Fork | EventKind::Exec) {
                event.a5 = NO_VALUE;
            }
            self.events.push(event);
            self.doing[task as usize].leave();
            return;
        };
        self.events.end_ns.to_mut()[row] = header.time_ns.max(self.events.time_ns[row]);
        self.events.ret.to_mut()[row] = ret;
        let mut flags = failed(ret);
        let child = self.events.a5[row];
        // A parent that returned only after the child had called exec or exited was waiting for that: vfork.
        if nr == NR_CLONE3 && child != NO_VALUE && self.tasks.get(child as u32).released_parent {
            flags |= SHARES_MM;
        }
        self.events.flags.to_mut()[row] |= flags;
        self.doing[task as usize].leave();
    }

    /// The call that the task is still in never returned, as far as the recording knows.
    fn abandon_call(&mut self, task: u32, now_ns: u64) {
        if let Some(row) = self.doing[task as usize].call() {
            self.events.flags.to_mut()[row] |= EXIT_UNSEEN;
            self.events.end_ns.to_mut()[row] = now_ns.max(self.events.time_ns[row]);
            self.doing[task as usize].leave();
        }
    }

    fn page_fault(&mut self, header: &Header<'_>, task: u32, flags: u8) -> Outcome {
        let (address, ip, error_code) =
            perf_line::page_fault(header.payload).ok_or("`address=A ip=A error_code=0xN`")?;
        self.tasks.get_mut(task).own = true;
        if error_code & ERROR_USER != 0 && flags & KERNEL_MODE == 0 {
            self.abandon_call(task, header.time_ns);
        }
        let (address, address_name) = self.place(address);
        let (ip, ip_name) = self.place(ip);
        let mut event = Event::new(EventKind::Fault, header.time_ns, header.cpu, task);
        event.flags = flags;
        let row = self.events.push(event.with_args(&[address, error_code, ip, ip_name, address_name]));
        self.doing[task as usize].begin_fault(row, error_code);
        self.callers.begin(row);
        Ok(())
    }

    /// The call chain of the event before is at its end.
    fn end_chain(&mut self) {
        if let Some((row, text)) = self.callers.end() {
            self.events.site.to_mut()[row] = u32::try_from(self.names.intern(&text)).unwrap_or(NO_SITE);
        }
    }

    fn place(&mut self, place: Place<'_>) -> (u64, u64) {
        match place {
            Place::Address(address) => (address, NO_VALUE),
            Place::Symbol(name) => (0, self.names.intern(name)),
        }
    }

    fn sched_switch(&mut self, header: &Header<'_>) -> Outcome {
        let switch = perf_line::sched_switch(header.payload)
            .ok_or("`prev_comm=C prev_pid=N prev_prio=N prev_state=S ==> next_comm=C next_pid=N next_prio=N`")?;
        let prev = self.task(switch.prev_tid, switch.prev_comm);
        let next = self.task(switch.next_tid, switch.next_comm);
        let event = Event::new(EventKind::Switch, header.time_ns, header.cpu, prev);
        let args = [next.into(), switch.prev_state.into(), switch.preempted.into()];
        let row = self.events.push(event.with_args(&args));
        self.just_switched[usize::from(header.cpu)] = Some(row);
        if let Some(exit) = self.doing[prev as usize].exit()
            && matches!(switch.prev_state, b'X' | b'Z')
        {
            self.events.end_ns.to_mut()[exit] = header.time_ns.max(self.events.time_ns[exit]);
            self.tasks.forget(prev);
        }
        Ok(())
    }

    fn process_fork(&mut self, header: &Header<'_>) -> Outcome {
        let (parent, comm, child) =
            perf_line::sched_process_fork(header.payload).ok_or("`comm=C pid=N child_comm=C child_pid=N`")?;
        let parent = self.task(parent, header.comm);
        let child = self.tasks.make(child, comm);
        self.make_room();
        let kernel_thread = is_kthread_name(comm) || is_kthread_name(header.comm);
        self.tasks.get_mut(parent).own |= !kernel_thread;
        self.tasks.get_mut(child).own |= !kernel_thread;
        let call = self.doing[parent as usize].call();
        if let Some(row) = call.filter(|&row| self.events.kind[row] == EventKind::Fork.number()) {
            self.events.a5.to_mut()[row] = child.into();
        } else {
            let event = Event::new(EventKind::ProcessFork, header.time_ns, header.cpu, parent);
            self.events.push(event.with_args(&[child.into()]));
        }
        Ok(())
    }

    fn process_exec(&mut self, header: &Header<'_>) -> Outcome {
        let (file, tid, old_tid) =
            perf_line::sched_process_exec(header.payload).ok_or("`filename=F pid=N old_pid=N`")?;
        let task = self.task(tid, header.comm);
        if tid != old_tid {
            // A thread that calls exec takes over the id of its process's first thread.
            let old = self.task(old_tid, header.comm);
            self.doing[task as usize] = std::mem::take(&mut self.doing[old as usize]);
            self.tasks.forget(old);
        }
        let open = self.doing[task as usize].call();
        let row = if let Some(row) = open.filter(|&row| self.events.kind[row] == EventKind::Exec.number()) {
            row
        } else {
            self.abandon_call(task, header.time_ns);
            let event = Event::new(EventKind::Exec, header.time_ns, header.cpu, task);
            let row = self.events.push(Event { nr: NR_EXECVE, flags: ENTER_UNSEEN, ..event });
            self.doing[task as usize].enter(row);
            row
        };
        self.events.a5.to_mut()[row] = self.names.intern(file);
        let task = self.tasks.get_mut(task);
        task.own = true;
        task.released_parent = true;
        Ok(())
    }

    fn process_exit(&mut self, header: &Header<'_>) -> Outcome {
        let (tid, group_dead) =
            perf_line::sched_process_exit(header.payload).ok_or("`comm=C pid=N prio=N [group_dead=true|false]`")?;
        let number = self.task(tid, header.comm);
        if let Some(row) = self.doing[number as usize].call() {
            // exit and exit_group end here, any other call was cut short by a signal.
            let ends = matches!(
                EventKind::from_number(self.events.kind[row]),
                Some(EventKind::ExitCall | EventKind::ExitGroup)
            );
            self.abandon_call(number, header.time_ns);
            if ends {
                self.events.flags.to_mut()[row] &= !EXIT_UNSEEN;
            }
        }
        let task = self.tasks.get_mut(number);
        task.own |= !is_kthread_name(header.comm);
        task.released_parent = true;
        let event = Event::new(EventKind::Exit, header.time_ns, header.cpu, number);
        let row = self.events.push(event.with_args(&[group_dead.map_or(NO_VALUE, u64::from)]));
        self.doing[number as usize].begin_exit(row);
        Ok(())
    }

    fn tlb_flush(&mut self, header: &Header<'_>, task: u32, after_switch: Option<usize>, pages: i64, reason: u8) {
        const TASK_SWITCH: u8 = 0;
        const REMOTE_SHOOTDOWN: u8 = 1;
        const REMOTE_SEND_IPI: u8 = 4;
        const REMOTE_WRONG_CPU: u8 = 5;
        let row = self.flushes.len();
        let mut flush = Flush::new(FlushKind::TlbFlushEvent, header.time_ns, header.cpu, task);
        (flush.pages, flush.reason) = (pages, reason);
        if pages == ALL_PAGES {
            flush.end = u64::MAX;
        }
        match reason {
            TASK_SWITCH => {
                if let Some(switch) = after_switch {
                    (flush.op_event, flush.attribution) = (row_number(switch), Attribution::Switch.number());
                }
                flush.request = row_number(row);
            }
            REMOTE_SHOOTDOWN | REMOTE_WRONG_CPU => {
                self.just_switched[usize::from(header.cpu)] = after_switch;
                if let Some(send) = self.own_part(task, header.cpu).filter(|_| reason == REMOTE_WRONG_CPU) {
                    // The sender itself no longer runs that address space (exec): this is its part of the request, and
                    // what it flushes next is another one.
                    self.open_send[task as usize] = None;
                    flush.request = row_number(send);
                    flush.icpu = header.cpu;
                    flush.op_event = self.flushes.op_event[send];
                    flush.attribution = self.flushes.attribution[send];
                } else if let Some(send) = self.senders.of(header.cpu, self.tasks.get(task).pid) {
                    flush.request = row_number(send.row);
                    flush.icpu = send.cpu;
                    if send.op_event >= 0 {
                        (flush.op_event, flush.attribution) = (send.op_event, Attribution::Sender.number());
                    }
                }
            }
            _ => {
                let opened = self.open_send[task as usize].filter(|_| reason != REMOTE_SEND_IPI);
                if let Some(send) = opened {
                    flush.op_event = self.flushes.op_event[send];
                    flush.attribution = self.flushes.attribution[send];
                    flush.request = row_number(send);
                    self.open_send[task as usize] = None;
                } else {
                    let (op_event, how) = self.doing[task as usize].open_request();
                    (flush.op_event, flush.attribution) = (op_event, how.number());
                    flush.request = row_number(row);
                }
                flush.icpu = header.cpu;
                if reason == REMOTE_SEND_IPI {
                    let pid = self.tasks.get(task).pid;
                    self.senders.begin(Send { row, op_event: flush.op_event, task, pid, cpu: header.cpu });
                    self.open_send[task as usize] = Some(row);
                }
            }
        }
        self.flushes.push(flush);
    }

    /// The request that the task made on this CPU and of which its own CPU has shown nothing yet.
    fn own_part(&self, task: u32, cpu: u16) -> Option<usize> {
        self.open_send[task as usize].filter(|&send| self.flushes.cpu[send] == cpu)
    }

    fn finish(mut self) -> Recording {
        self.end_chain();
        for number in 0..self.tasks.len() as u32 {
            self.abandon_call(number, self.last_time_ns);
        }
        self.finish_forks();
        let (tasks, index, nr_kthread_names) = self.tasks.finish();
        let mut meta = self.meta;
        meta.nr_kthread_names = nr_kthread_names;
        meta.smp = meta.smp.max(self.just_switched.len() as u32);
        for task in self.events.task.to_mut() {
            *task = index[*task as usize];
        }
        for row in 0..self.events.len() {
            match EventKind::from_number(self.events.kind[row]) {
                Some(EventKind::Switch | EventKind::ProcessFork) => {
                    let number = &mut self.events.a0.to_mut()[row];
                    *number = renumber(&index, *number);
                }
                Some(EventKind::Fork) => {
                    let number = &mut self.events.a5.to_mut()[row];
                    *number = renumber(&index, *number);
                }
                _ => {}
            }
        }
        for task in self.flushes.task.to_mut() {
            *task = index[*task as usize];
        }
        Recording { meta, tasks, names: self.names.finish(), events: self.events, flushes: self.flushes }
    }

    /// Tells threads from processes: by the process ids that the children's own lines show, else by clone's flags.
    fn finish_forks(&mut self) {
        for row in 0..self.events.len() {
            let kind = EventKind::from_number(self.events.kind[row]);
            let child = match kind {
                Some(EventKind::Fork) => self.events.a5[row],
                Some(EventKind::ProcessFork) => self.events.a0[row],
                _ => continue,
            };
            let nr = self.events.nr[row];
            let clone_flags = if nr == NR_CLONE { self.events.a0[row] } else { 0 };
            let mut flags = 0;
            if clone_flags & CLONE_VM != 0 || nr == NR_VFORK {
                flags |= SHARES_MM;
            }
            let parent_pid = self.tasks.get(self.events.task[row]).pid;
            let by_flags = clone_flags & CLONE_THREAD != 0;
            let is_thread = if child == NO_VALUE {
                by_flags
            } else if let Some(pid) = self.tasks.get(child as u32).pid {
                Some(pid) == parent_pid
            } else {
                if !matches!(nr, NR_CLONE | NR_FORK | NR_VFORK) {
                    // No line of the child and no flags to look at: taken for a process.
                    self.count("children_of_unknown_process");
                }
                if by_flags {
                    self.tasks.get_mut(child as u32).pid = parent_pid;
                }
                by_flags
            };
            if is_thread {
                flags |= THREAD | SHARES_MM;
            }
            self.events.flags.to_mut()[row] |= flags;
        }
    }
}

fn failed(ret: i64) -> u8 {
    if (-4095..=-1).contains(&ret) { FAILED } else { 0 }
}
