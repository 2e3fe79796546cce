//! A simulation: the TLBs of some CPUs, fed with streams of addresses and events.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::cpu::{Counts, Cpu};
use super::event::Event;
use super::fast::FastCpu;
use super::page_map::PageMap;
use super::plain::PlainCpu;
use super::walker::ADDRESS_BITS;
use crate::addr::Levels;
use crate::error::{Error, Result};
use crate::tlb::TlbGeometry;

/// Accesses between two looks at whether to stop: some milliseconds, a tenth of a second in the plain engine.
const SLICE: usize = 1 << 19;
/// The same for each thread where several share a stream: starting them takes time too.
const SHARED_SLICE: usize = 1 << 21;
const POLL: Duration = Duration::from_millis(20);

/// What a simulation needs to know of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The arrays of one CPU.
    pub tlb: TlbGeometry,
    /// How many levels of page tables a walk reads.
    pub levels: Levels,
}

/// Which engine; both give the same counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    /// The fast one wherever it takes the machine.
    #[default]
    Auto,
    /// The plain one.
    Plain,
}

/// What one CPU does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream<'a> {
    /// The accesses, in bytes.
    pub addresses: &'a [u64],
    /// What happens between them, sorted by place.
    pub events: &'a [Event],
}

/// The TLBs of some CPUs.
pub struct Simulation {
    cpus: Vec<Box<dyn Cpu>>,
    nr_done: Vec<u64>,
    nr_threads: usize,
}

impl Simulation {
    /// Empty TLBs for `nr_cpus` CPUs; at most `nr_threads` threads will work, which changes no count.
    ///
    /// # Errors
    /// One line if the machine's geometry is invalid.
    pub fn new(machine: &Machine, pages: &PageMap, nr_cpus: usize, nr_threads: usize, engine: Engine) -> Result<Self> {
        let cpu = || -> Result<Box<dyn Cpu>> {
            Ok(if engine == Engine::Auto && FastCpu::takes(machine) {
                Box::new(FastCpu::new(machine, pages.clone())?)
            } else {
                Box::new(PlainCpu::new(machine, pages.clone())?)
            })
        };
        let cpus = (0..nr_cpus).map(|_| cpu()).collect::<Result<_>>()?;
        Ok(Self { cpus, nr_done: vec![0; nr_cpus], nr_threads: nr_threads.max(1) })
    }

    /// What each CPU came to so far.
    pub fn counts(&self) -> Vec<Counts> {
        self.cpus.iter().map(|cpu| cpu.counts()).collect()
    }

    /// Runs one stream for each CPU. `stop` is asked every few milliseconds whether to give up; then the counts are
    /// those of whatever was done.
    ///
    /// # Errors
    /// One line if there are not as many streams as CPUs, an event is out of order, behind the last access or names
    /// what cannot be, or an address has more than 57 bits.
    pub fn run(&mut self, streams: &[Stream<'_>], stop: &mut dyn FnMut() -> bool) -> Result<()> {
        if streams.len() != self.cpus.len() {
            let (found, expected) = (streams.len(), self.cpus.len());
            return Err(Error::Value(format!("streams: found {found}, expected one for each of {expected} CPUs")));
        }
        streams.iter().enumerate().try_for_each(|(cpu, stream)| check_events(cpu, stream))?;
        let nr_workers = self.nr_threads.min(streams.len());
        // Threads that are left over share the streams.
        let nr_inner = self.nr_threads / nr_workers.max(1);
        let mut work: Vec<_> = self.cpus.iter_mut().zip(streams).zip(&mut self.nr_done).enumerate().collect();
        if nr_workers <= 1 {
            let mut stop = || stop();
            return work.iter_mut().try_for_each(|(cpu, ((state, stream), done))| {
                run_one(*cpu, &mut ***state, stream, nr_inner, done, &mut stop)
            });
        }
        let stopped = AtomicBool::new(false);
        let nr_left = AtomicUsize::new(nr_workers);
        // Streams differ in length: whoever is free takes the longest that is left.
        work.sort_by_key(|(_, ((_, stream), _))| stream.addresses.len());
        let queue = std::sync::Mutex::new(work);
        let first_error = std::sync::Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..nr_workers {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().map_or(None, |mut queue| queue.pop());
                        let Some((cpu, ((state, stream), done))) = next else { break };
                        let mut stop = || stopped.load(Ordering::Relaxed);
                        if let Err(error) = run_one(cpu, &mut **state, stream, nr_inner, done, &mut stop)
                            && let Ok(mut first) = first_error.lock()
                            && first.as_ref().is_none_or(|(other, _)| cpu < *other)
                        {
                            *first = Some((cpu, error));
                        }
                    }
                    nr_left.fetch_sub(1, Ordering::Release);
                });
            }
            while nr_left.load(Ordering::Acquire) > 0 {
                if stop() {
                    stopped.store(true, Ordering::Relaxed);
                }
                thread::sleep(POLL.min(Duration::from_micros(200)));
            }
        });
        first_error.into_inner().unwrap_or(None).map_or(Ok(()), |(_, error)| Err(error))
    }
}

fn check_events(cpu: usize, stream: &Stream<'_>) -> Result<()> {
    let mut last = 0;
    for (index, event) in stream.events.iter().enumerate() {
        let error = |found: String, expected: String| {
            Err(Error::Value(format!("event {index} of CPU {cpu}: found {found}, expected {expected}")))
        };
        if event.at < last || event.at > stream.addresses.len() as u64 {
            let (found, nr_accesses) = (format!("place {}", event.at), stream.addresses.len());
            return error(found, format!("one from {last} to {nr_accesses}: sorted, within the accesses"));
        }
        last = event.at;
        if !event.kind.is_valid() {
            return error(format!("{:?}", event.kind), "a PCID below 4096".to_owned());
        }
        if let Some(address) = event.kind.address()
            && address >> ADDRESS_BITS != 0
        {
            return error(format!("address {address:#x}"), format!("at most {ADDRESS_BITS} bits"));
        }
    }
    Ok(())
}

fn run_one(
    cpu: usize,
    state: &mut dyn Cpu,
    stream: &Stream<'_>,
    nr_threads: usize,
    nr_done: &mut u64,
    stop: &mut dyn FnMut() -> bool,
) -> Result<()> {
    let slice = if nr_threads > 1 { SHARED_SLICE * nr_threads } else { SLICE };
    let mut from = 0;
    let ends = stream.events.iter().map(|event| (event.at as usize, Some(event.kind)));
    for (to, event) in ends.chain([(stream.addresses.len(), None)]) {
        let mut slices = stream.addresses[from..to].chunks(slice);
        from = to;
        slices.try_for_each(|slice| {
            if stop() {
                return Ok(());
            }
            let result = state.access(slice, nr_threads).map_err(|at| {
                let (index, address) = (*nr_done + at as u64, slice[at]);
                Error::Value(format!(
                    "access {index} of CPU {cpu}: found address {address:#x}, expected at most {ADDRESS_BITS} bits"
                ))
            });
            *nr_done += slice.len() as u64;
            result
        })?;
        if let Some(kind) = event {
            state.event(kind);
        }
    }
    Ok(())
}
