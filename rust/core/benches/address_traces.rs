//! Times address traces through two levels of TLB: `cargo bench -p tlbcore --bench address_traces [NAME]...`.
//!
//! The traces of `data/traces`, and `uniform1g` and `zipf64k`, which are like those of `benches/bench_tlb.py`. Each row is
//! the median of several runs with the fastest and the slowest, in CPU time of the thread.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::cast_precision_loss, reason = "figures to look at")]
#![expect(clippy::cast_sign_loss, reason = "numbers of pages are not negative")]

use std::path::Path;
use std::time::Duration;

use tlbcore::addr::{Levels, PageSize};
use tlbcore::tlb::{ArrayGeometry, TlbGeometry};
use tlbcore::tlb_trace::{Counts, Engine, Machine, PageMap, Simulation, Stream};
use tlbcore::trace::address::read_file;

const RUNS: usize = 9;
/// How long one timing lasts at least: the kernel counts the time of a running thread at its ticks.
const LEAST: Duration = Duration::from_millis(100);
const NR_ACCESSES: usize = 10_000_000;

/// What this thread has run so far: other programs on the machine do not count.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts the time of threads");
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("the first number"))
}

fn random(nr_pages: u64, is_skewed: bool) -> Vec<u64> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let page = |share: f64| if is_skewed { (nr_pages as f64).powf(share) - 1.0 } else { nr_pages as f64 * share };
    (0..NR_ACCESSES)
        .map(|_| {
            let number = page(next()) as u64;
            // Popular pages lie all over the place.
            let number = if is_skewed { number.wrapping_mul(0x9e37_79b1) % nr_pages } else { number };
            0x7f00_0000_0000 + (number << 12)
        })
        .collect()
}

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let absent = ArrayGeometry::ABSENT;
    let tlb = TlbGeometry { pde_cache: absent, pdpte_cache: absent, pml4e_cache: absent, ..TlbGeometry::default() };
    let machine = Machine { tlb, levels: Levels::Four };
    let pages = PageMap::uniform(PageSize::Size4K);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two folders up").join("data/traces");
    for name in ["sort", "python", "bigpython", "uniform1g", "zipf64k"] {
        if !names.is_empty() && !names.iter().any(|only| name.contains(only.as_str())) {
            continue;
        }
        let addresses = match name {
            "uniform1g" => random(1 << 18, false),
            "zipf64k" => random(1 << 16, true),
            _ => read_file(&folder.join(format!("{name}.delta.zst")), None)
                .expect("the trace is there")
                .addresses
                .to_vec(),
        };
        let mut counts = Counts::default();
        let mut times: Vec<Duration> = (0..RUNS)
            .map(|_| {
                let (begin, mut nr) = (cpu_time(), 0);
                loop {
                    let mut simulation = Simulation::new(&machine, &pages, 1, 1, Engine::Auto).expect("it is valid");
                    let streams = [Stream { addresses: &addresses, events: &[] }];
                    simulation.run(&streams, &mut || false).expect("they are addresses");
                    counts = simulation.counts()[0];
                    nr += 1;
                    let taken = cpu_time().saturating_sub(begin);
                    if taken >= LEAST {
                        return taken / nr;
                    }
                }
            })
            .collect();
        times.sort_unstable();
        let rate = |time: Duration| addresses.len() as f64 / time.as_secs_f64() / 1e6;
        println!(
            "{name:<10} {:>6.0} M accesses/s ({:.0} to {:.0})  {} misses, {} walks",
            rate(times[RUNS / 2]),
            rate(times[RUNS - 1]),
            rate(times[0]),
            counts.nr_l1_misses,
            counts.nr_walks,
        );
    }
}
