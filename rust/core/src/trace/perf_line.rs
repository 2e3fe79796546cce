//! One line of `perf script` text: header fields and the payloads of the tracepoints that a recording is made of.
//!
//! Contract: parsing from bytes, without allocation, never a panic whatever the bytes. A task's name may hold spaces,
//! colons, brackets: fields are found by the strict grammar around it. What a payload means is `perf.rs`'s business.

/// The fields in front of the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header<'a> {
    pub comm: &'a [u8],
    /// Process id, -1 if perf did not know it any more.
    pub pid: i64,
    /// Thread id, -1 if perf did not know it any more.
    pub tid: i64,
    pub cpu: u16,
    pub time_ns: u64,
    /// `subsystem:event` without the colon after it.
    pub event: &'a [u8],
    pub payload: &'a [u8],
}

/// The parts of a line of `perf script --ns -F comm,pid,tid,cpu,time,event,trace`, `None` if it is none.
pub(super) fn parse_header(line: &[u8]) -> Option<Header<'_>> {
    // perf pads the name to 16 columns, and a kernel's name has at most 15 bytes.
    if line.get(16) == Some(&b' ')
        && let Some(header) = header_after(line, 16)
    {
        return Some(header);
    }
    // Otherwise the first place where ids, CPU and time follow each other.
    (0..line.len()).filter(|&at| line[at] == b' ').find_map(|at| header_after(line, at))
}

fn header_after(line: &[u8], comm_end: usize) -> Option<Header<'_>> {
    let mut rest = Cursor(line[comm_end..].trim_ascii_start());
    let pid = rest.signed()?;
    rest.literal(b"/")?;
    let tid = rest.signed()?;
    rest.spaces()?;
    rest.literal(b"[")?;
    let cpu = u16::try_from(rest.decimal()?).unwrap_or(u16::MAX); // more than there are: the importer says so
    rest.literal(b"]")?;
    rest.spaces()?;
    let seconds = rest.decimal()?;
    rest.literal(b".")?;
    let digits = rest.0.len();
    let fraction = rest.decimal()?;
    let digits = (digits - rest.0.len()) as u32;
    let scale = 10u64.checked_pow(9u32.checked_sub(digits)?)?;
    rest.literal(b":")?;
    rest.spaces()?;
    let time_ns = seconds.checked_mul(1_000_000_000)?.checked_add(fraction * scale)?;
    let event_end = rest.0.iter().position(|&byte| byte == b' ').unwrap_or(rest.0.len());
    let event = rest.0[..event_end].strip_suffix(b":")?;
    if event.is_empty() {
        return None;
    }
    let payload = rest.0[event_end..].trim_ascii();
    Some(Header { comm: line[..comm_end].trim_ascii(), pid, tid, cpu, time_ns, event, payload })
}

/// `NR 11 (7f00, 1000, ...)`: number and arguments.
pub(super) fn sys_enter(payload: &[u8]) -> Option<(i32, [u64; 6])> {
    let mut rest = Cursor(payload);
    rest.literal(b"NR ")?;
    let nr = i32::try_from(rest.signed()?).ok()?;
    rest.literal(b" (")?;
    let mut args = [0; 6];
    for (index, arg) in args.iter_mut().enumerate() {
        if index > 0 {
            rest.literal(b", ")?;
        }
        *arg = rest.hex()?;
    }
    rest.literal(b")")?;
    rest.0.is_empty().then_some((nr, args))
}

/// `NR 11 = 0`: number and return value.
pub(super) fn sys_exit(payload: &[u8]) -> Option<(i32, i64)> {
    let mut rest = Cursor(payload);
    rest.literal(b"NR ")?;
    let nr = i32::try_from(rest.signed()?).ok()?;
    rest.literal(b" = ")?;
    let value = rest.signed()?;
    rest.0.is_empty().then_some((nr, value))
}

/// An address that perf may have replaced by a symbol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place<'a> {
    Address(u64),
    Symbol(&'a [u8]),
}

impl<'a> Place<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        Some(number(text).map_or(Self::Symbol(text), Self::Address))
    }
}

/// `20ce7 munmap (/usr/lib/ld-linux-x86-64.so.2)`, a line of a call chain: whether it is of the kernel, symbol, module.
pub(super) fn frame(line: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    const KERNEL_HALF: u64 = 1 << 63;
    let mut rest = Cursor(line.trim_ascii());
    let ip = rest.hex()?;
    rest.literal(b" ")?;
    let (symbol, module) = rsplit(rest.0, b" (")?;
    let module = module.strip_suffix(b")")?;
    let name = module.iter().rposition(|&byte| byte == b'/').map_or(module, |slash| &module[slash + 1..]);
    Some((ip >= KERNEL_HALF, symbol, name))
}

/// `address=0x... ip=0x... error_code=0x6`: address, ip, error code.
pub(super) fn page_fault(payload: &[u8]) -> Option<(Place<'_>, Place<'_>, u64)> {
    let rest = payload.strip_prefix(b"address=")?;
    let (address, rest) = split(rest, b" ip=")?;
    let (ip, code) = split(rest, b" error_code=")?;
    Some((Place::parse(address)?, Place::parse(ip)?, number(code)?))
}

/// `pages:7 reason:local MM shootdown (3)`: pages and reason.
pub(super) fn tlb_flush(payload: &[u8]) -> Option<(i64, u8)> {
    let mut rest = Cursor(payload.strip_prefix(b"pages:")?);
    let pages = rest.signed()?;
    rest.literal(b" reason:")?;
    let open = rest.0.iter().rposition(|&byte| byte == b'(')?;
    let mut reason = Cursor(&rest.0[open + 1..]);
    let value = u8::try_from(reason.decimal()?).ok()?;
    (reason.0 == b")" && pages >= -1 && value <= 5).then_some((pages, value))
}

/// A context switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SchedSwitch<'a> {
    pub prev_comm: &'a [u8],
    pub prev_tid: u32,
    /// The state's letter.
    pub prev_state: u8,
    /// Whether `+` follows it.
    pub preempted: bool,
    pub next_comm: &'a [u8],
    pub next_tid: u32,
}

/// `prev_comm=a prev_pid=1 prev_prio=120 prev_state=S ==> next_comm=b next_pid=2 next_prio=120`.
pub(super) fn sched_switch(payload: &[u8]) -> Option<SchedSwitch<'_>> {
    let rest = payload.strip_prefix(b"prev_comm=")?;
    // A name could imitate the text that follows it: take the first split after which everything fits.
    occurrences(rest, b" prev_pid=").find_map(|(prev_comm, after)| {
        let mut rest = Cursor(after);
        let prev_tid = u32::try_from(rest.decimal()?).ok()?;
        rest.literal(b" prev_prio=")?;
        rest.signed()?;
        rest.literal(b" prev_state=")?;
        let (state, next) = split(rest.0, b" ==> next_comm=")?;
        let (&prev_state, more) = state.split_first()?;
        let (next_comm, ids) = rsplit(next, b" next_pid=")?;
        let mut ids = Cursor(ids);
        let next_tid = u32::try_from(ids.decimal()?).ok()?;
        ids.literal(b" next_prio=")?;
        ids.signed()?;
        let preempted = more.contains(&b'+');
        ids.0.is_empty().then_some(SchedSwitch { prev_comm, prev_tid, prev_state, preempted, next_comm, next_tid })
    })
}

/// `comm=a pid=1 prio=120 orig_cpu=1 dest_cpu=0`: name, tid, from, to.
pub(super) fn sched_migrate_task(payload: &[u8]) -> Option<(&[u8], u32, u64, u64)> {
    let (comm, after) = rsplit(payload.strip_prefix(b"comm=")?, b" pid=")?;
    let mut rest = Cursor(after);
    let tid = u32::try_from(rest.decimal()?).ok()?;
    rest.literal(b" prio=")?;
    rest.signed()?;
    rest.literal(b" orig_cpu=")?;
    let from = rest.decimal()?;
    rest.literal(b" dest_cpu=")?;
    let to = rest.decimal()?;
    rest.0.is_empty().then_some((comm, tid, from, to))
}

/// `comm=a pid=1 child_comm=a child_pid=2`: parent's tid, child's name and tid.
pub(super) fn sched_process_fork(payload: &[u8]) -> Option<(u32, &[u8], u32)> {
    let rest = payload.strip_prefix(b"comm=")?;
    occurrences(rest, b" pid=").find_map(|(_, after)| {
        let mut rest = Cursor(after);
        let parent = u32::try_from(rest.decimal()?).ok()?;
        rest.literal(b" child_comm=")?;
        let (comm, child) = rsplit(rest.0, b" child_pid=")?;
        Some((parent, comm, u32::try_from(number(child)?).ok()?))
    })
}

/// `filename=a pid=1 old_pid=1`: file, tid now, tid before.
pub(super) fn sched_process_exec(payload: &[u8]) -> Option<(&[u8], u32, u32)> {
    let (rest, old) = rsplit(payload.strip_prefix(b"filename=")?, b" old_pid=")?;
    let (file, tid) = rsplit(rest, b" pid=")?;
    Some((file, u32::try_from(number(tid)?).ok()?, u32::try_from(number(old)?).ok()?))
}

/// `comm=a pid=1 prio=120 group_dead=true`: tid, whether the process is gone (kernels before 6.16 do not say).
pub(super) fn sched_process_exit(payload: &[u8]) -> Option<(u32, Option<bool>)> {
    let (_, after) = rsplit(payload.strip_prefix(b"comm=")?, b" pid=")?;
    let mut rest = Cursor(after);
    let tid = u32::try_from(rest.decimal()?).ok()?;
    rest.literal(b" prio=")?;
    rest.signed()?;
    match rest.0 {
        b"" => Some((tid, None)),
        b" group_dead=true" | b" group_dead=1" => Some((tid, Some(true))),
        b" group_dead=false" | b" group_dead=0" => Some((tid, Some(false))),
        _ => None,
    }
}

/// A decimal number or one with `0x`, alone.
fn number(text: &[u8]) -> Option<u64> {
    let mut rest = Cursor(text);
    let value = if let Some(hex) = text.strip_prefix(b"0x") {
        rest.0 = hex;
        rest.hex()?
    } else {
        rest.decimal()?
    };
    rest.0.is_empty().then_some(value)
}

fn occurrences<'a>(text: &'a [u8], mark: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    text.windows(mark.len())
        .enumerate()
        .filter(move |(_, window)| *window == mark)
        .map(move |(at, _)| (&text[..at], &text[at + mark.len()..]))
}

fn split<'a>(text: &'a [u8], mark: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    occurrences(text, mark).next()
}

fn rsplit<'a>(text: &'a [u8], mark: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(mark.len()).rposition(|window| window == mark)?;
    Some((&text[..at], &text[at + mark.len()..]))
}

/// What is left of a text.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    /// At least one space.
    fn spaces(&mut self) -> Option<()> {
        let rest = self.0.trim_ascii_start();
        if rest.len() == self.0.len() {
            return None;
        }
        self.0 = rest;
        Some(())
    }

    fn decimal(&mut self) -> Option<u64> {
        self.digits(10)
    }

    fn hex(&mut self) -> Option<u64> {
        self.digits(16)
    }

    fn signed(&mut self) -> Option<i64> {
        if let Some(rest) = self.0.strip_prefix(b"-") {
            self.0 = rest;
            let magnitude = self.decimal()?;
            return 0i64.checked_sub_unsigned(magnitude);
        }
        i64::try_from(self.decimal()?).ok()
    }

    fn digits(&mut self, radix: u32) -> Option<u64> {
        let mut value = 0u64;
        let mut nr_digits = 0;
        for &byte in self.0 {
            let Some(digit) = char::from(byte).to_digit(radix) else {
                break;
            };
            value = value.checked_mul(radix.into())?.checked_add(digit.into())?;
            nr_digits += 1;
        }
        if nr_digits == 0 {
            return None;
        }
        self.0 = &self.0[nr_digits..];
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_behind_any_name() {
        let rest = "12/-1    [003]  1197.000000042:   tlb:tlb_flush: pages:7 reason:local MM shootdown (3)";
        for comm in ["m", "a b", ":-1", "x 1/1 [0", "1/2 [000] 3.4: ", "stress-ng-madvi"] {
            let line = format!("{comm:>16} {rest}");
            let header = parse_header(line.as_bytes()).unwrap();
            assert_eq!(header.comm, comm.trim().as_bytes());
            assert_eq!((header.pid, header.tid, header.cpu), (12, -1, 3));
            assert_eq!(header.time_ns, 1_197_000_000_042);
            assert_eq!(header.event, b"tlb:tlb_flush");
            assert_eq!(tlb_flush(header.payload), Some((7, 3)));
        }
        let unpadded = format!("m {rest}");
        assert_eq!(parse_header(unpadded.as_bytes()).unwrap().comm, b"m");
        assert_eq!(parse_header(b"T0 mmap A 0 1 rw anon"), None);
        assert_eq!(parse_header(b""), None);
    }

    #[test]
    fn microseconds_are_scaled() {
        let header = parse_header(b"               m 1/1 [000] 2.000003: a:b: x").unwrap();
        assert_eq!(header.time_ns, 2_000_003_000);
    }

    #[test]
    fn payloads_parse_strictly() {
        assert_eq!(
            sys_enter(b"NR 12 (0, 7ffd, 0, 37f, 0, ffffffffffffffff)"),
            Some((12, [0, 0x7ffd, 0, 0x37f, 0, u64::MAX]))
        );
        assert_eq!(sys_enter(b"NR 12 (0, 1, 0, 3, 0)"), None);
        assert_eq!(sys_exit(b"NR 9 = -12"), Some((9, -12)));
        assert_eq!(sys_exit(b"NR 9 = x"), None);
        assert_eq!(tlb_flush(b"pages:-1 reason:remote wrong CPU (5)"), Some((-1, 5)));
        assert_eq!(tlb_flush(b"pages:1 reason:later (9)"), None);
        let fault = page_fault(b"address=0x10 ip=_copy_from_iter error_code=0x3");
        assert_eq!(fault, Some((Place::Address(16), Place::Symbol(b"_copy_from_iter"), 3)));
        assert_eq!(sched_process_exit(b"comm=lto cgu.0 pid=4 prio=120 group_dead=false"), Some((4, Some(false))));
        assert_eq!(sched_process_exit(b"comm=m pid=4 prio=120"), Some((4, None)));
        assert_eq!(sched_process_exec(b"filename=a pid=1 b pid=3 old_pid=2"), Some((b"a pid=1 b".as_slice(), 3, 2)));
        assert_eq!(sched_process_fork(b"comm=a pid=1 child_comm=b child_pid=2"), Some((1, b"b".as_slice(), 2)));
        assert_eq!(
            sched_migrate_task(b"comm=a pid=1 prio=120 orig_cpu=1 dest_cpu=0"),
            Some((b"a".as_slice(), 1, 1, 0))
        );
    }

    #[test]
    fn a_name_that_imitates_the_fields_does_not_confuse_a_switch() {
        let payload = b"prev_comm=x prev_pid=1 y prev_pid=7 prev_prio=120 prev_state=R+ ==> next_comm=z next_pid=8 next_pid=9 next_prio=5";
        let switch = sched_switch(payload).unwrap();
        assert_eq!((switch.prev_comm, switch.prev_tid), (b"x prev_pid=1 y".as_slice(), 7));
        assert_eq!((switch.prev_state, switch.preempted), (b'R', true));
        assert_eq!((switch.next_comm, switch.next_tid), (b"z next_pid=8".as_slice(), 9));
    }
}
