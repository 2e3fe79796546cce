//! Times import and replay of the recordings in `data/recordings`: `cargo bench -p tlbcore --bench recordings`.
//!
//! With arguments, only the recordings whose name contains one of them; `import` or `replay` does only that part,
//! `once` does each a single time (for `valgrind --tool=callgrind`, which counts instructions). Each row is the median of
//! several runs with the fastest and the slowest, in CPU time of the thread. `digest` prints a checksum of all that each
//! replay gives, to hold two builds against each other.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::cast_precision_loss, reason = "figures to look at")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tlbcore::machine::MachineConfig;
use tlbcore::program::CompiledKernel;
use tlbcore::replay::replay;
use tlbcore::trace::{Recording, import_file, import_text};

const RUNS: usize = 9;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the core lies two folders down").to_owned()
}

/// What this thread has run so far: other programs on the machine do not count.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts the time of threads");
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("the first number"))
}

/// How long one timing lasts at least: the kernel counts the time of a running thread at its ticks.
const LEAST: Duration = Duration::from_millis(60);

/// Median, fastest and slowest.
fn timed(runs: usize, mut work: impl FnMut()) -> [f64; 3] {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let (begin, mut nr) = (cpu_time(), 0);
            loop {
                work();
                nr += 1;
                let taken = cpu_time().saturating_sub(begin);
                if taken >= LEAST || runs == 1 {
                    return taken / nr;
                }
            }
        })
        .collect();
    times.sort_unstable();
    [times[runs / 2], times[0], times[runs - 1]].map(|time| time.as_secs_f64())
}

fn import_row(name: &str, path: &Path, runs: usize) {
    let compressed = std::fs::read(path).expect("the recording is there");
    let text = zstd::decode_all(&compressed[..]).expect("the recording is whole");
    let megabytes = text.len() as f64 / 1e6;
    let [unpack, ..] = timed(runs, || drop(zstd::decode_all(&compressed[..]).expect("as before")));
    let [plain, fastest, slowest] = timed(runs, || drop(import_text("bench", &text).expect("it is a recording")));
    let [whole, ..] = timed(runs, || drop(import_file(path).expect("it is a recording")));
    println!(
        "import {name:<12} {megabytes:>6.1} MB text {:>6.0} MB/s ({:.0} to {:.0})  with decompression {:>6.0} MB/s, of which {:>3.0} %",
        megabytes / plain,
        megabytes / slowest,
        megabytes / fastest,
        megabytes / whole,
        100.0 * unpack / whole,
    );
}

fn replay_row(name: &str, recording: &Recording, kernel: &Arc<CompiledKernel>, runs: usize) {
    let cpus =
        recording.events.cpu.iter().chain(recording.flushes.cpu.iter()).max().map_or(1, |&cpu| u32::from(cpu) + 1);
    let config = MachineConfig { nr_cpus: cpus.max(2), pcid: true, ..MachineConfig::default() };
    let events = recording.events.len() as f64;
    let time = &recording.events.time_ns;
    let program = (time.last().copied().unwrap_or(0) - time.first().copied().unwrap_or(0)) as f64 / 1e9;
    let [median, fastest, slowest] =
        timed(runs, || drop(replay(recording, kernel, &config, false, &mut || false).expect("it replays")));
    println!(
        "replay {name:<12} {events:>8} events {:>6.2} M events/s ({:.2} to {:.2})  {:>5.1} times as fast as the program",
        events / median / 1e6,
        events / slowest / 1e6,
        events / fastest / 1e6,
        program / median,
    );
}

fn digest_row(name: &str, recording: &Recording, kernel: &Arc<CompiledKernel>) {
    for follow_masks in [false, true] {
        let config = MachineConfig { nr_cpus: 4, pcid: true, ..MachineConfig::default() };
        let got = replay(recording, kernel, &config, follow_masks, &mut || false).expect("it replays");
        let rows: Vec<_> = got.ledger.rows().collect();
        let text = format!("{:?}{rows:?}{:?}{:?}{}", got.predicted, got.counters, got.noted, got.nr_events);
        println!("{name} {follow_masks} {:08x} of {} bytes", crc32fast::hash(text.as_bytes()), text.len());
    }
}

fn main() {
    // `cargo bench` adds an option of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    let names: Vec<&String> =
        arguments.iter().filter(|word| !["import", "replay", "once", "digest"].contains(&word.as_str())).collect();
    let runs = if asked("once") { 1 } else { RUNS };
    let kernel_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/linux-6.18.json");
    let kernel = std::fs::read_to_string(kernel_file).expect("the kernel is there");
    let kernel = Arc::new(CompiledKernel::from_json(&kernel).expect("it compiles"));
    let folder = repository().join("data/recordings");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("there are recordings").flatten().map(|f| f.path()).collect();
    paths.sort();
    for path in paths {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = file.split('.').next().unwrap_or_default();
        if !names.is_empty() && !names.iter().any(|only| name.contains(only.as_str())) {
            continue;
        }
        if asked("digest") {
            digest_row(name, &import_file(&path).expect("it is a recording"), &kernel);
            continue;
        }
        if !asked("replay") {
            import_row(name, &path, runs);
        }
        if !asked("import") {
            let recording = import_file(&path).expect("it is a recording");
            replay_row(name, &recording, &kernel, runs);
        }
    }
}
