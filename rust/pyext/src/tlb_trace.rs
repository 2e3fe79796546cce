//! Address traces for Python: files as arrays over the same memory, simulations of arrays without copies.

use std::path::PathBuf;

use numpy::ndarray::ArrayView1;
use numpy::{Element, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::Deserialize;
use serde_json::json;
use tlbcore::addr::PageSize;
use tlbcore::error::Error;
use tlbcore::machine::MachineConfig;
use tlbcore::tlb_trace::{Counts, Engine, Event, EventKind, Machine, PageMap, Simulation, Stream};
use tlbcore::trace::address::{self, Format};

use crate::errors::Result;

/// A file with the addresses of a program's accesses.
#[pyclass(frozen, module = "tlbcore._core")]
pub struct AddressTrace {
    inner: address::AddressTrace,
}

#[expect(clippy::needless_pass_by_value, reason = "arguments from Python are extracted into values")]
#[pymethods]
impl AddressTrace {
    /// Reads any file that is understood; `format` insists on one.
    #[staticmethod]
    #[pyo3(signature = (path, format = None))]
    fn open(py: Python<'_>, path: PathBuf, format: Option<&str>) -> Result<Self> {
        let format = format.map(str::parse::<Format>).transpose()?;
        Ok(Self { inner: py.detach(|| address::read_file(&path, format))? })
    }

    /// The names of the formats.
    #[staticmethod]
    fn formats() -> Vec<&'static str> {
        Format::ALL.iter().map(|format| format.name()).collect()
    }

    /// What the file was written in.
    #[getter]
    fn format(&self) -> &'static str {
        self.inner.format.name()
    }

    /// The addresses, a read-only uint64 array.
    #[getter]
    fn addresses<'py>(this: &Bound<'py, Self>) -> Result<Bound<'py, PyAny>> {
        borrowed(this, &this.get().inner.addresses)
    }

    /// The number of the thread of each access, a read-only uint32 array; None where the format knows no threads.
    #[getter]
    fn threads<'py>(this: &Bound<'py, Self>) -> Result<Option<Bound<'py, PyAny>>> {
        let inner = &this.get().inner;
        if inner.thread_names.is_empty() { Ok(None) } else { borrowed(this, &inner.threads).map(Some) }
    }

    /// The threads' own names, by number.
    #[getter]
    fn thread_names(&self) -> Vec<String> {
        self.inner.thread_names.clone()
    }

    /// Instructions in the file beside the accesses.
    #[getter]
    const fn nr_instructions(&self) -> u64 {
        self.inner.nr_instructions
    }

    /// Lines of the file that are neither.
    #[getter]
    const fn nr_other_lines(&self) -> u64 {
        self.inner.nr_other_lines
    }
}

fn borrowed<'py, T: Element>(owner: &Bound<'py, AddressTrace>, values: &[T]) -> Result<Bound<'py, PyAny>> {
    // SAFETY: `values` belongs to `owner`, which the array keeps alive and which is frozen: its columns never move. The
    // array is made read-only before anybody sees it (a mapped column must not be written to).
    let array = unsafe { PyArray1::borrow_from_array(&ArrayView1::from(values), owner.clone().into_any()) };
    let write = PyDict::new(owner.py());
    write.set_item("write", false)?;
    array.call_method("setflags", (), Some(&write))?;
    Ok(array.into_any())
}

/// One stream: addresses, and the columns of its events (place, kind, PCID, address).
type Columns<'py> = (
    PyReadonlyArray1<'py, u64>,
    PyReadonlyArray1<'py, u64>,
    PyReadonlyArray1<'py, u8>,
    PyReadonlyArray1<'py, u16>,
    PyReadonlyArray1<'py, u64>,
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    page_size: u8,
    page_ranges: Vec<(u64, u64, u8)>,
    threads: usize,
    plain: bool,
}

/// Runs one stream for each CPU through its TLBs; what each CPU came to, as JSON text.
///
/// All arrays have one dimension and are contiguous. Ctrl-C ends it with KeyboardInterrupt; `progress` is called now and
/// then, and what it raises ends it too.
#[pyfunction]
#[pyo3(signature = (config_json, options_json, streams, progress = None))]
#[expect(clippy::needless_pass_by_value, reason = "arguments from Python are extracted into values")]
pub fn simulate_tlb(
    py: Python<'_>,
    config_json: &str,
    options_json: &str,
    streams: Vec<Columns<'_>>,
    progress: Option<Py<PyAny>>,
) -> Result<String> {
    let config = MachineConfig::from_json(config_json)?;
    let options: Options =
        serde_json::from_str(options_json).map_err(|error| Error::Value(format!("options: {error}")))?;
    let size = |index: u8| PageSize::ALL[usize::from(index.min(2))];
    let ranges = options.page_ranges.iter().map(|&(start, end, index)| (start, end, size(index))).collect();
    let pages = PageMap::new(size(options.page_size), ranges)?;
    let events = streams.iter().map(events_of).collect::<Result<Vec<_>>>()?;
    let streams = streams
        .iter()
        .zip(&events)
        .map(|(columns, events)| Ok(Stream { addresses: contiguous(&columns.0)?, events }))
        .collect::<Result<Vec<_>>>()?;
    let disabled = || Error::Value("tlb_enabled: found false, expected a machine whose TLBs are modelled".to_owned());
    let machine = Machine { tlb: config.geometry().ok_or_else(disabled)?, levels: config.levels()? };
    let engine = if options.plain { Engine::Plain } else { Engine::Auto };
    let mut interrupted = None;
    let counts = py.detach(|| -> std::result::Result<Vec<Counts>, Error> {
        let mut simulation = Simulation::new(&machine, &pages, streams.len(), options.threads, engine)?;
        simulation.run(&streams, &mut || {
            if interrupted.is_none() {
                let told = Python::attach(|py| {
                    py.check_signals()?;
                    progress.as_ref().map_or(Ok(()), |tell| tell.call0(py).map(drop))
                });
                interrupted = told.err();
            }
            interrupted.is_some()
        })?;
        Ok(simulation.counts())
    });
    if let Some(error) = interrupted {
        return Err(error.into());
    }
    Ok(json!(counts?.iter().map(plain).collect::<Vec<_>>()).to_string())
}

fn plain(counts: &Counts) -> serde_json::Value {
    json!({
        "nr_accesses": counts.nr_accesses,
        "nr_l1_misses": counts.nr_l1_misses,
        "nr_walks": counts.nr_walks,
        "walks_by_loads": counts.walks_by_loads,
        "walks_by_size": counts.walks_by_size,
    })
}

fn contiguous<'a, T: Element>(array: &'a PyReadonlyArray1<'_, T>) -> Result<&'a [T]> {
    let expected = || Error::Value("array: found one with gaps, expected a contiguous one".to_owned());
    Ok(array.as_slice().map_err(|_| expected())?)
}

fn events_of(columns: &Columns<'_>) -> Result<Vec<Event>> {
    let (_, places, kinds, pcids, addresses) = columns;
    let (places, kinds, pcids) = (contiguous(places)?, contiguous(kinds)?, contiguous(pcids)?);
    let addresses = contiguous(addresses)?;
    let rows = places.iter().zip(kinds).zip(pcids).zip(addresses);
    rows.map(|(((&at, &kind), &pcid), &address)| {
        let kind = match kind {
            0 => EventKind::Switch(pcid),
            1 => EventKind::FlushPcid(pcid),
            2 => EventKind::FlushCurrent,
            3 => EventKind::FlushAll,
            4 => EventKind::Invalidate { pcid, address },
            5 => EventKind::InvalidateCurrent(address),
            _ => return Err(Error::Value(format!("kind of event: found {kind}, expected 0 to 5")).into()),
        };
        Ok(Event { at, kind })
    })
    .collect()
}
