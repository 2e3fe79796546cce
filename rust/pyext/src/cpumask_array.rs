//! `CpuMaskArray` for Python: questions to many masks in one call, answered as NumPy arrays.

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use tlbcore::cpumask::{CpuMask, CpuMaskArray};
use tlbcore::error::Error;

use crate::cpumask::{PyCpuMask, value_error, width};

/// Many masks of one width, for questions to all of them at once. Immutable.
///
/// ``CpuMaskArray(nr_cpus, words)`` takes a uint64 array of one row for each mask, as ``CpuMask.words()`` gives a row.
#[pyclass(frozen, module = "tlbcore", name = "CpuMaskArray")]
pub struct PyCpuMaskArray(CpuMaskArray);

#[pymethods]
impl PyCpuMaskArray {
    #[new]
    #[pyo3(signature = (nr_cpus, words))]
    #[expect(clippy::needless_pass_by_value, reason = "Python gives it so")]
    fn new(nr_cpus: &Bound<'_, PyAny>, words: PyReadonlyArray2<'_, u64>) -> PyResult<Self> {
        let nr_cpus = width(nr_cpus)?;
        let words = words.as_array();
        let (found, expected) = (words.ncols(), (nr_cpus as usize).div_ceil(64));
        if found != expected && nr_cpus > 0 {
            let what = format!("words: found rows of {found}, expected {expected} ({nr_cpus} CPUs)");
            return Err(value_error(Error::Value(what)));
        }
        let words = words.iter().copied().collect();
        CpuMaskArray::from_words(nr_cpus, words).map(Self).map_err(value_error)
    }

    /// The masks one after the other; one or more, of one width.
    #[classmethod]
    fn from_masks(_cls: &Bound<'_, PyType>, masks: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut found: Vec<PyRef<'_, PyCpuMask>> = Vec::new();
        for mask in masks.try_iter()? {
            found.push(mask?.extract()?);
        }
        let Some(first) = found.first() else {
            return Err(value_error(Error::Value("masks: found none, expected one or more".to_owned())));
        };
        let masks = found.iter().map(|mask| &mask.0);
        CpuMaskArray::from_masks(first.0.nr_cpus(), masks).map(Self).map_err(value_error)
    }

    /// How many CPUs the machine has: the width of each mask.
    #[getter]
    const fn nr_cpus(&self) -> u32 {
        self.0.nr_cpus()
    }

    /// The bits as a uint64 array, one row for each mask.
    fn words<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<u64>>> {
        let per_mask = (self.0.nr_cpus() as usize).div_ceil(64);
        PyArray1::from_slice(py, self.0.words()).reshape([self.0.len(), per_mask])
    }

    /// How many CPUs each holds.
    fn weights<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        PyArray1::from_vec(py, self.0.weights())
    }

    /// How many CPUs each has in common with ``other``.
    fn weights_and<'py>(&self, py: Python<'py>, other: &PyCpuMask) -> PyResult<Bound<'py, PyArray1<u32>>> {
        Ok(PyArray1::from_vec(py, self.0.weights_and(self.same_width(other)?)))
    }

    /// How many CPUs each holds that are not in ``other``.
    fn weights_andnot<'py>(&self, py: Python<'py>, other: &PyCpuMask) -> PyResult<Bound<'py, PyArray1<u32>>> {
        Ok(PyArray1::from_vec(py, self.0.weights_andnot(self.same_width(other)?)))
    }

    /// Which of them have a CPU in common with ``other``.
    fn intersects<'py>(&self, py: Python<'py>, other: &PyCpuMask) -> PyResult<Bound<'py, PyArray1<bool>>> {
        Ok(PyArray1::from_vec(py, self.0.intersects(self.same_width(other)?)))
    }

    /// The CPUs of any of them.
    fn union(&self) -> PyCpuMask {
        PyCpuMask(self.0.union())
    }

    /// The CPUs of all of them; every CPU if there is none.
    fn intersection(&self) -> PyCpuMask {
        PyCpuMask(self.0.intersection())
    }

    const fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__(&self, key: isize) -> PyResult<PyCpuMask> {
        let len = self.0.len();
        let at = if key < 0 { key.checked_add_unsigned(len) } else { Some(key) };
        let mask = at.and_then(|at| usize::try_from(at).ok()).and_then(|at| self.0.get(at));
        mask.map(PyCpuMask).ok_or_else(|| PyIndexError::new_err(format!("mask: found {key}, expected one of {len}")))
    }

    fn __or__(&self, value: &PyCpuMask) -> PyResult<Self> {
        self.changed(value, CpuMaskArray::or_assign)
    }

    fn __and__(&self, value: &PyCpuMask) -> PyResult<Self> {
        self.changed(value, CpuMaskArray::and_assign)
    }

    fn __sub__(&self, value: &PyCpuMask) -> PyResult<Self> {
        self.changed(value, CpuMaskArray::andnot_assign)
    }
}

impl PyCpuMaskArray {
    fn changed(&self, value: &PyCpuMask, change: impl FnOnce(&mut CpuMaskArray, &CpuMask)) -> PyResult<Self> {
        let value = self.same_width(value)?;
        let mut array = self.0.clone();
        change(&mut array, value);
        Ok(Self(array))
    }

    fn same_width<'a>(&self, other: &'a PyCpuMask) -> PyResult<&'a CpuMask> {
        let (found, expected) = (other.0.nr_cpus(), self.0.nr_cpus());
        if found == expected {
            return Ok(&other.0);
        }
        Err(value_error(Error::Value(format!("other mask: found {found} CPUs, expected {expected}"))))
    }
}
