//! The one place where an error of the core becomes a Python exception. The exceptions themselves are Python's
//! (`tlbcore.errors`), so that pure Python code raises them without this module.
//!
//! A function of the binding returns [`Result`]; `?` then works on errors of the core and of Python alike.

use pyo3::PyErr;
use pyo3::exceptions::PyOSError;
use tlbcore::error::Error;

pyo3::import_exception!(tlbcore.errors, InputError);
pyo3::import_exception!(tlbcore.errors, ProgramError);
pyo3::import_exception!(tlbcore.errors, TlbcoreError);

/// The result of a function of the binding.
pub type Result<T> = std::result::Result<T, BindingError>;

/// An error on its way to Python.
#[derive(Debug)]
pub enum BindingError {
    /// Raised by the core, still to be mapped.
    Core(Error),
    /// Raised by Python already, passed on as it is.
    Python(PyErr),
}

impl From<Error> for BindingError {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<PyErr> for BindingError {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<BindingError> for PyErr {
    fn from(error: BindingError) -> Self {
        match error {
            BindingError::Core(error) => to_python(error),
            BindingError::Python(error) => error,
        }
    }
}

fn to_python(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Value(_) | Error::Input { .. } => InputError::new_err(message),
        Error::Program { .. } => ProgramError::new_err(message),
        Error::Io { file, source } => match source.raw_os_error() {
            // With number and name OSError becomes the right subclass (FileNotFoundError, ...) and keeps the name.
            Some(errno) => PyOSError::new_err((errno, strerror(&source), file)),
            // No call of the system failed: a reader found the contents broken, as a truncated compressed stream.
            None => InputError::new_err(message),
        },
        // The core's enum may grow; a kind without an exception of its own is still ours.
        _ => TlbcoreError::new_err(message),
    }
}

/// The system's message without the ` (os error N)` that Rust appends and that `OSError` says itself.
fn strerror(error: &std::io::Error) -> String {
    let message = error.to_string();
    match message.rfind(" (os error ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}
