//! Importer of the lab's scenarios (`.scn`): work without a truth.
//!
//! Contract: every entry becomes StepBegin, its event, StepEnd, per iteration. Times are invented, only their order
//! counts: a round takes 1 microsecond; entries joined by `|` overlap: all of a round begin, all act, all end. Ids are
//! invented too (T0 is 1). A mapped file's descriptor is its name index.

use super::events::{Event, EventColumns, Meta, Recording, TaskInfo};
use super::kinds::{EventKind, NO_VALUE, SHARES_MM, THREAD};
use super::scn_op::{Mismatch, Mode, Op, is_op};
use super::tasks::Names;
use super::text::Lines;
use crate::error::Result;

const ROUND_NS: u64 = 1000;
const NR_CLONE: i32 = 56;
const NR_FORK: i32 = 57;
const NR_EXIT_GROUP: i32 = 231;
/// `CLONE_VM | CLONE_THREAD`, what matters of a thread's flags.
const CLONE_FLAGS_THREAD: u64 = 0x1_0100;
const MAX_REPETITIONS: u64 = 100_000;

/// Whether the first line with content looks like a scenario's: an actor and a known operation.
pub(super) fn looks_like(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else {
        return false;
    };
    let second = line.split_ascii_whitespace().nth(1);
    second.is_some_and(|word| word == "rep" || is_op(word))
}

/// Reads all lines.
pub(super) fn import(mut lines: Lines) -> Result<Recording> {
    let mut importer = Importer::new(lines.base_name());
    while let Some(line) = lines.next()? {
        let outcome = match std::str::from_utf8(line) {
            Ok(line) => importer.line(line),
            Err(_) => Err(Mismatch { found: super::text::excerpt(line), expected: "UTF-8 text".to_owned() }),
        };
        if let Err(Mismatch { found, expected }) = outcome {
            return Err(lines.error(&found, &expected));
        }
    }
    importer.meta.nr_lines = lines.nr_line();
    Ok(importer.finish())
}

struct Importer {
    meta: Meta,
    tasks: Vec<TaskInfo>,
    cpu_of: Vec<u16>,
    names: Names,
    events: EventColumns,
    now_ns: u64,
    step: u64,
}

struct Entry<'a> {
    task: u32,
    repetitions: u64,
    text: String,
    op: Op<'a>,
}

impl Importer {
    fn new(file: &str) -> Self {
        let meta = Meta { source: "scn".to_owned(), file: file.to_owned(), ..Meta::default() };
        let mut importer = Self {
            meta,
            tasks: Vec::new(),
            cpu_of: Vec::new(),
            names: Names::default(),
            events: EventColumns::default(),
            now_ns: 0,
            step: 0,
        };
        importer.start_task("T0", 1, 0, Mode::Spin, 0);
        importer.now_ns = ROUND_NS;
        importer
    }

    fn line(&mut self, line: &str) -> std::result::Result<(), Mismatch> {
        if let Some(setting) = line.trim().strip_prefix("#!") {
            return self.setting(setting.trim());
        }
        let line = line.split('#').next().unwrap_or_default();
        if line.trim().is_empty() {
            return Ok(());
        }
        let mut entries = Vec::new();
        for part in line.split('|') {
            entries.push(self.entry(part)?);
        }
        let nr_rounds = entries.iter().map(|entry| entry.repetitions).max().unwrap_or(0);
        for round in 0..nr_rounds {
            let running = || entries.iter().filter(|entry| round < entry.repetitions);
            for entry in running() {
                let text = self.names.intern(entry.text.as_bytes());
                self.push(EventKind::StepBegin, entry.task, 0, &[self.step, round, text]);
            }
            for entry in running() {
                self.act(entry)?;
            }
            for entry in running() {
                self.push(EventKind::StepEnd, entry.task, ROUND_NS - 1, &[self.step, round]);
            }
            self.now_ns += ROUND_NS;
        }
        self.step += 1;
        Ok(())
    }

    fn setting(&mut self, setting: &str) -> std::result::Result<(), Mismatch> {
        match setting.split_once('=') {
            Some(("thp", value @ ("always" | "madvise" | "never"))) => self.meta.thp = Some(value.to_owned()),
            Some(("memcg", value @ ("0" | "1"))) => self.meta.memcg = value == "1",
            _ => {
                let expected = "thp=always, thp=madvise, thp=never or memcg=1".to_owned();
                return Err(Mismatch { found: format!("`{}`", setting.escape_debug()), expected });
            }
        }
        Ok(())
    }

    fn entry<'a>(&self, part: &'a str) -> std::result::Result<Entry<'a>, Mismatch> {
        let part = part.trim();
        let (actor, mut rest) = part.split_once([' ', '\t']).unwrap_or((part, ""));
        let task = self.task(actor)?;
        let mut repetitions = 1;
        if let Some(after) = rest.trim_start().strip_prefix("rep ") {
            let after = after.trim_start();
            let (count, after) = after.split_once([' ', '\t']).unwrap_or((after, ""));
            repetitions =
                count.parse().ok().filter(|count| (1..=MAX_REPETITIONS).contains(count)).ok_or_else(|| {
                    let expected = format!("repetitions, 1 to {MAX_REPETITIONS}");
                    Mismatch { found: format!("`{}`", count.escape_debug()), expected }
                })?;
            rest = after;
        }
        let text = rest.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Entry { task, repetitions, text, op: Op::parse(rest)? })
    }

    fn task(&self, name: &str) -> std::result::Result<u32, Mismatch> {
        // The latest of a name: a process may be made again under the name of one that is gone.
        let found = self.tasks.iter().rposition(|task| task.comm == name);
        found.map(|index| index as u32).ok_or_else(|| Mismatch {
            found: format!("actor `{}`", name.escape_debug()),
            expected: "T0 or one that an earlier thread or fork made".to_owned(),
        })
    }

    fn push(&mut self, kind: EventKind, task: u32, after_ns: u64, args: &[u64]) -> usize {
        let cpu = self.cpu_of[task as usize];
        self.events.push(Event::new(kind, self.now_ns + after_ns, cpu, task).with_args(args))
    }

    fn act(&mut self, entry: &Entry<'_>) -> std::result::Result<(), Mismatch> {
        let Entry { task, ref op, .. } = *entry;
        let cpu = self.cpu_of[task as usize];
        let time_ns = self.now_ns + 1;
        if let Some(event) = op.step_event(time_ns, cpu, task, &mut self.names) {
            if event.kind == EventKind::SetCpu.number() {
                let new = event.a0 as u16;
                self.cpu_of[task as usize] = new;
                self.meta.smp = self.meta.smp.max(u32::from(new) + 1);
            }
            self.events.push(event);
        }
        let call = |nr| Event { nr, ..Event::new(EventKind::of_syscall(nr), time_ns, cpu, task) };
        match *op {
            Op::Start { name, cpu, mode, thread } => {
                let child = self.tasks.len() as u32;
                let tid = child + 1;
                let pid = if thread { self.tasks[task as usize].pid } else { tid };
                let mut event = call(if thread { NR_CLONE } else { NR_FORK });
                event.a5 = child.into();
                event.ret = tid.into();
                if thread {
                    event.a0 = CLONE_FLAGS_THREAD;
                    event.flags = THREAD | SHARES_MM;
                }
                self.events.push(event);
                self.start_task(name, pid, cpu, mode, 1);
            }
            Op::Exit => {
                self.events.push(call(NR_EXIT_GROUP));
                self.push(EventKind::Exit, task, 1, &[1]);
            }
            Op::Wait { name } => {
                let other = self.task(name)?;
                self.push(EventKind::Wait, task, 1, &[other.into()]);
            }
            Op::Call { nr, mut args, file } => {
                if let Some((file, _)) = file {
                    args[4] = self.names.intern(file.as_bytes());
                }
                let mut event = call(nr).with_args(&args);
                // Where mmap and mremap say that they put it: all scenarios ask for fixed places.
                event.ret = match event.kind() {
                    EventKind::Mmap => args[0].cast_signed(),
                    EventKind::Mremap if args[3] == 0 => args[0].cast_signed(),
                    EventKind::Mremap => args[4].cast_signed(),
                    _ => 0,
                };
                self.events.push(event);
            }
            Op::Other { .. } => {}
        }
        Ok(())
    }

    fn start_task(&mut self, name: &str, pid: u32, cpu: u16, mode: Mode, after_ns: u64) {
        let task = self.tasks.len() as u32;
        self.tasks.push(TaskInfo { tid: task + 1, pid, comm: name.to_owned() });
        self.cpu_of.push(cpu);
        self.meta.smp = self.meta.smp.max(u32::from(cpu) + 1);
        self.push(EventKind::TaskStart, task, after_ns, &[]);
        self.push(mode.event_kind(), task, after_ns, &[]);
    }

    fn finish(self) -> Recording {
        debug_assert!(self.events.a5.iter().all(|&child| child != NO_VALUE), "every child of a scenario is known");
        Recording {
            meta: self.meta,
            tasks: self.tasks,
            names: self.names.finish(),
            events: self.events,
            ..Recording::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use EventKind::{Access, Exit, ExitGroup, Fork, Mmap, ModeSleep, ModeSpin, StepBegin, StepEnd, TaskStart};

    use super::*;

    fn read(text: &str) -> Result<Recording> {
        import(Lines::from_bytes("a.scn", text.as_bytes())?)
    }

    #[test]
    fn entries_become_events_in_rounds() {
        let text = "#! thp=always\nT0 thread T1 1 sleep\nT0 mmap A 0 2 rw anon | T1 rep 2 touch B 0 3 w 2\nT0 exit\n";
        let recording = read(text).unwrap();
        recording.verify().unwrap();
        assert_eq!(recording.meta.thp.as_deref(), Some("always"));
        assert_eq!((recording.meta.smp, recording.meta.nr_lines), (2, 4));
        let kinds: Vec<_> = recording.events.kind.iter().filter_map(|&kind| EventKind::from_number(kind)).collect();
        let expected = [
            &[TaskStart, ModeSpin, StepBegin, Fork, TaskStart, ModeSleep, StepEnd][..],
            &[StepBegin, StepBegin, Mmap, Access, StepEnd, StepEnd, StepBegin, Access, StepEnd],
            &[StepBegin, ExitGroup, Exit, StepEnd],
        ];
        assert_eq!(kinds, expected.concat());
        assert!(recording.events.time_ns.is_sorted());
        assert_eq!(recording.tasks[1], TaskInfo { tid: 2, pid: 1, comm: "T1".to_owned() });
        let access = recording.events.get(10);
        assert_eq!((access.a0, access.a1, access.a2, access.a3), (0x1001_0000_0000, 3, 2, 1));
        assert_eq!((access.task, access.cpu), (1, 1));
        assert_eq!(recording.names[recording.events.a2[8] as usize], "touch B 0 3 w 2");
    }

    #[test]
    fn mistakes_name_line_found_and_expected() {
        let error = |text| read(text).unwrap_err().to_string();
        assert_eq!(
            error("T0 nop\n\nT9 nop"),
            "a.scn: line 3: found actor `T9`, expected T0 or one that an earlier thread or fork made"
        );
        assert_eq!(error("T0 touch A 0 1 x"), "a.scn: line 1: found `x`, expected r or w (r, w)");
        assert_eq!(error("T0 rep 0 nop"), "a.scn: line 1: found `0`, expected repetitions, 1 to 100000");
        assert_eq!(
            error("T0 nop |"),
            "a.scn: line 1: found actor ``, expected T0 or one that an earlier thread or fork made"
        );
    }
}
