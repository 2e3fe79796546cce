//! Recordings for Python: columns go out as read-only NumPy arrays over the same memory, nothing is copied.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use numpy::ndarray::ArrayView1;
use numpy::{Element, PyArray1};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tlbcore::error::Error;
use tlbcore::trace::column::ColumnView;
use tlbcore::trace::{Attribution, EventColumns, EventKind, FlushColumns, FlushKind, format, import_file_watched};

use crate::errors::BindingError;

/// A recording: what programs did to their address spaces, and the flushes that the kernel did for it.
#[pyclass(frozen, module = "tlbcore._core")]
pub struct Recording {
    inner: tlbcore::trace::Recording,
}

impl Recording {
    /// The recording itself.
    pub const fn get(&self) -> &tlbcore::trace::Recording {
        &self.inner
    }
}

fn to_py_error(error: Error) -> PyErr {
    BindingError::from(error).into()
}

#[expect(clippy::needless_pass_by_value, reason = "arguments from Python are extracted into values")]
#[pymethods]
impl Recording {
    /// Reads any file that is understood: a recording, perf script text, lab records, a scenario. `progress(done, of)` is
    /// told the bytes of a text, `of` 0 if its length is not known; what it raises ends the reading, as Ctrl-C does.
    #[staticmethod]
    #[pyo3(signature = (path, progress = None))]
    fn open(py: Python<'_>, path: PathBuf, progress: Option<Py<PyAny>>) -> PyResult<Self> {
        let nr_bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
        let interrupted = Arc::new(Mutex::new(None));
        let told = Arc::clone(&interrupted);
        let watch = move |done: u64| {
            let error = Python::attach(|py| {
                py.check_signals()?;
                progress.as_ref().map_or(Ok(()), |tell| tell.call1(py, (done, nr_bytes)).map(drop))
            });
            let Err(error) = error else {
                return false;
            };
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            true
        };
        let result = py.detach(|| import_file_watched(&path, Some(Box::new(watch))));
        if let Some(error) = interrupted.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        Ok(Self { inner: result.map_err(to_py_error)? })
    }

    /// Writes it as a `.tlbr` file, whole or not at all.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| format::write(&self.inner, &path)).map_err(to_py_error)
    }

    /// Checks that all that refers to something does (kinds, tasks, names, rows).
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.verify()).map_err(to_py_error)
    }

    /// Reads all of a `.tlbr` file, compares its checksums and checks its content.
    #[staticmethod]
    fn verify_file(py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| format::verify(&path)).map_err(to_py_error)
    }

    /// Where it comes from and what is known about its machine, as a dictionary.
    #[getter]
    fn meta<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let json = serde_json::to_string(&self.inner.meta)
            .map_err(|error| BindingError::from(Error::Value(error.to_string())))?;
        py.import("json")?.call_method1("loads", (json,))
    }

    /// Threads as (tid, pid, comm), in the order of their indices.
    #[getter]
    fn tasks(&self) -> Vec<(u32, u32, String)> {
        self.inner.tasks.iter().map(|task| (task.tid, task.pid, task.comm.clone())).collect()
    }

    /// Names that events refer to by index.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.inner.names.clone()
    }

    /// Rows of the event table.
    #[getter]
    fn nr_events(&self) -> usize {
        self.inner.events.len()
    }

    /// Rows of the flush table.
    #[getter]
    fn nr_flushes(&self) -> usize {
        self.inner.flushes.len()
    }

    /// Names of the event table's columns.
    #[classattr]
    fn event_columns() -> Vec<&'static str> {
        EventColumns::NAMES.to_vec()
    }

    /// Names of the flush table's columns.
    #[classattr]
    fn flush_columns() -> Vec<&'static str> {
        FlushColumns::NAMES.to_vec()
    }

    /// Names of event kinds by number.
    #[staticmethod]
    fn event_kinds() -> Vec<(u8, &'static str)> {
        EventKind::ALL.iter().map(|kind| (kind.number(), kind.name())).collect()
    }

    /// Names of flush kinds by number.
    #[staticmethod]
    fn flush_kinds() -> Vec<(u8, &'static str)> {
        FlushKind::ALL.iter().map(|kind| (kind.number(), kind.name())).collect()
    }

    /// Names of attributions by number.
    #[staticmethod]
    fn attributions() -> Vec<(u8, &'static str)> {
        Attribution::ALL.iter().map(|how| (how.number(), how.name())).collect()
    }

    /// A column of the event table as a read-only array.
    fn column<'py>(this: &Bound<'py, Self>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        to_array(this, this.get().inner.events.view(name), name, EventColumns::NAMES)
    }

    /// A column of the flush table as a read-only array.
    fn flush_column<'py>(this: &Bound<'py, Self>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        to_array(this, this.get().inner.flushes.view(name), name, FlushColumns::NAMES)
    }

    fn __repr__(&self) -> String {
        let meta = &self.inner.meta;
        let (events, flushes) = (self.inner.events.len(), self.inner.flushes.len());
        format!("Recording({:?}, source={:?}, nr_events={events}, nr_flushes={flushes})", meta.file, meta.source)
    }
}

fn to_array<'py>(
    owner: &Bound<'py, Recording>,
    view: Option<ColumnView<'_>>,
    name: &str,
    known: &[&str],
) -> PyResult<Bound<'py, PyAny>> {
    match view {
        Some(ColumnView::U8(values)) => borrowed(owner, values),
        Some(ColumnView::U16(values)) => borrowed(owner, values),
        Some(ColumnView::U32(values)) => borrowed(owner, values),
        Some(ColumnView::U64(values)) => borrowed(owner, values),
        Some(ColumnView::I32(values)) => borrowed(owner, values),
        Some(ColumnView::I64(values)) => borrowed(owner, values),
        None => Err(PyKeyError::new_err(format!("found column {name:?}, expected one of {}", known.join(", ")))),
    }
}

fn borrowed<'py, T: Element>(owner: &Bound<'py, Recording>, values: &[T]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `values` belongs to `owner`, which the array keeps alive and which is frozen: its columns never move. The
    // array is made read-only before anybody sees it (a mapped column must not be written to).
    let array = unsafe { PyArray1::borrow_from_array(&ArrayView1::from(values), owner.clone().into_any()) };
    let write = PyDict::new(owner.py());
    write.set_item("write", false)?;
    array.call_method("setflags", (), Some(&write))?;
    Ok(array.into_any())
}
