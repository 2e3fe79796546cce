//! `CpuMask` for Python: an immutable value around [`tlbcore::cpumask::CpuMask`], so that threads share it freely.
//!
//! What the core takes for a bug of its caller (a CPU outside the mask, two widths) is input here, and is checked
//! before the core is called.

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::basic::CompareOp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyType};
use tlbcore::cpumask::{CpuId, CpuMask};
use tlbcore::error::Error;

use crate::errors::BindingError;

/// The one place where an error of the core becomes an exception of Python.
pub(crate) fn value_error(error: Error) -> PyErr {
    BindingError::from(error).into()
}

/// An immutable set of the CPUs ``0 .. nr_cpus - 1``, like the kernel's ``struct cpumask``.
///
/// ``CpuMask(nr_cpus, cpus=())`` holds the given CPUs; both have to be in range (at most 8192 CPUs), else
/// ``ValueError``. Masks combine like sets (``| & - ^``, ``<= < >= >``) with masks of the same ``nr_cpus`` only.
// Operations make short-lived masks; a list of freed objects saves a tenth of their cost.
#[pyclass(frozen, freelist = 64, module = "tlbcore", name = "CpuMask")]
#[derive(Clone)]
pub struct PyCpuMask(pub(crate) CpuMask);

#[pymethods]
impl PyCpuMask {
    #[new]
    #[pyo3(signature = (nr_cpus, cpus = None), text_signature = "(nr_cpus, cpus=())")]
    fn new(nr_cpus: &Bound<'_, PyAny>, cpus: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut mask = CpuMask::new(width(nr_cpus)?).map_err(value_error)?;
        if let Some(cpus) = cpus {
            for cpu in cpus.try_iter()? {
                mask.set(cpu_in(&cpu?, &mask)?);
            }
        }
        Ok(Self(mask))
    }

    /// The mask that a kernel list such as ``"0-3,8"`` or ``"0-31:2/4"`` names.
    #[classmethod]
    fn from_cpulist(_cls: &Bound<'_, PyType>, text: &str, nr_cpus: &Bound<'_, PyAny>) -> PyResult<Self> {
        CpuMask::from_cpulist(text, width(nr_cpus)?).map(Self).map_err(value_error)
    }

    /// The mask that hexadecimal groups of 32 bits such as ``"ff,00000003"`` stand for.
    #[classmethod]
    fn from_hex_mask(_cls: &Bound<'_, PyType>, text: &str, nr_cpus: &Bound<'_, PyAny>) -> PyResult<Self> {
        CpuMask::from_hex_mask(text, width(nr_cpus)?).map(Self).map_err(value_error)
    }

    /// The mask of a bool array with one element for each CPU, or of a uint64 array as ``words()`` gives it.
    #[classmethod]
    #[pyo3(signature = (array, nr_cpus = None))]
    fn from_numpy(
        _cls: &Bound<'_, PyType>,
        array: &Bound<'_, PyAny>,
        nr_cpus: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let nr_cpus = nr_cpus.map(width).transpose()?;
        if let Ok(bools) = array.extract::<PyReadonlyArray1<'_, bool>>() {
            from_bools(&bools, nr_cpus)
        } else if let Ok(words) = array.extract::<PyReadonlyArray1<'_, u64>>() {
            let words: Vec<u64> = words.as_array().iter().copied().collect();
            let all_bits = || u32::try_from(words.len()).unwrap_or(u32::MAX).saturating_mul(u64::BITS);
            CpuMask::from_words(nr_cpus.unwrap_or_else(all_bits), &words).map(Self).map_err(value_error)
        } else {
            let found = array.get_type().name()?;
            let kind = match (array.getattr("dtype"), array.getattr("ndim")) {
                (Ok(dtype), Ok(ndim)) => format!("{found} of {ndim} dimensions and type {dtype}"),
                _ => found.to_string(),
            };
            Err(PyTypeError::new_err(format!(
                "array: found {kind}, expected a NumPy array of 1 dimension and type bool or uint64"
            )))
        }
    }

    /// A bool array of ``nr_cpus`` elements.
    fn to_numpy<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        let mut bools = vec![false; self.0.nr_cpus() as usize];
        for cpu in &self.0 {
            bools[cpu.index()] = true;
        }
        PyArray1::from_vec(py, bools)
    }

    /// The bits as a uint64 array, 64 CPUs an element, the lowest CPU in the lowest bit of the first.
    fn words<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        PyArray1::from_slice(py, self.0.words())
    }

    /// The CPUs of the mask as an ascending uint16 array.
    fn cpus<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u16>> {
        PyArray1::from_vec(py, self.0.numbers())
    }

    /// How many CPUs the machine has: the width of the mask.
    #[getter]
    fn nr_cpus(&self) -> u32 {
        self.0.nr_cpus()
    }

    /// The mask as a kernel list, such as ``"0-3,8"``.
    #[getter]
    fn cpulist(&self) -> String {
        self.0.to_string()
    }

    /// The mask as hexadecimal groups of 32 bits, the highest first, such as ``"ff,00000003"``.
    #[getter]
    fn hex_mask(&self) -> String {
        format!("{:x}", self.0)
    }

    /// How many CPUs the mask holds.
    fn weight(&self) -> u32 {
        self.0.weight()
    }

    /// How many CPUs both masks hold.
    fn weight_and(&self, other: &Self) -> PyResult<u32> {
        Ok(self.0.weight_and(self.same_width(other)?))
    }

    /// How many CPUs of this mask are not in ``other``.
    fn weight_andnot(&self, other: &Self) -> PyResult<u32> {
        Ok(self.0.weight_andnot(self.same_width(other)?))
    }

    /// How many CPUs either mask holds.
    fn weight_or(&self, other: &Self) -> PyResult<u32> {
        Ok(self.0.weight() + other.0.weight_andnot(other.same_width(self)?))
    }

    /// The CPUs that both masks hold, as an ascending uint16 array.
    fn cpus_and<'py>(&self, py: Python<'py>, other: &Self) -> PyResult<Bound<'py, PyArray1<u16>>> {
        Ok(PyArray1::from_vec(py, self.0.and(self.same_width(other)?).numbers()))
    }

    /// The CPUs of this mask that are not in ``other``, as an ascending uint16 array.
    fn cpus_andnot<'py>(&self, py: Python<'py>, other: &Self) -> PyResult<Bound<'py, PyArray1<u16>>> {
        Ok(PyArray1::from_vec(py, self.0.andnot(self.same_width(other)?).numbers()))
    }

    /// The lowest CPU, or None.
    fn first(&self) -> Option<u16> {
        self.0.first().map(|cpu| cpu.0)
    }

    /// The lowest CPU above ``after``, or None.
    fn next(&self, after: &Bound<'_, PyAny>) -> PyResult<Option<u16>> {
        Ok(self.0.next(cpu_in(after, &self.0)?).map(|cpu| cpu.0))
    }

    /// The lowest CPU other than ``cpu``, or None.
    fn any_but(&self, cpu: &Bound<'_, PyAny>) -> PyResult<Option<u16>> {
        Ok(self.0.any_but(cpu_in(cpu, &self.0)?).map(|cpu| cpu.0))
    }

    /// Whether some CPU is in both masks.
    fn intersects(&self, other: &Self) -> PyResult<bool> {
        Ok(self.0.intersects(self.same_width(other)?))
    }

    /// Whether no CPU is in both masks.
    fn isdisjoint(&self, other: &Self) -> PyResult<bool> {
        Ok(!self.intersects(other)?)
    }

    /// This mask and ``cpu``.
    fn with_cpu(&self, cpu: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut mask = self.0.clone();
        mask.set(cpu_in(cpu, &self.0)?);
        Ok(Self(mask))
    }

    /// This mask without ``cpu``.
    fn without_cpu(&self, cpu: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut mask = self.0.clone();
        mask.clear(cpu_in(cpu, &self.0)?);
        Ok(Self(mask))
    }

    fn __len__(&self) -> usize {
        self.0.weight() as usize
    }

    fn __contains__(&self, cpu: &Bound<'_, PyAny>) -> PyResult<bool> {
        // A number that no CPU of the machine has is not an error here: it is in no such set.
        let number = integer(cpu, "CPU")?;
        Ok(number.is_some_and(|cpu| u32::from(cpu) < self.0.nr_cpus() && self.0.test(CpuId(cpu))))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyList::new(py, self.0.numbers())?.try_iter()
    }

    fn __or__(&self, other: &Self) -> PyResult<Self> {
        Ok(Self(self.0.or(self.same_width(other)?)))
    }

    fn __and__(&self, other: &Self) -> PyResult<Self> {
        Ok(Self(self.0.and(self.same_width(other)?)))
    }

    fn __sub__(&self, other: &Self) -> PyResult<Self> {
        Ok(Self(self.0.andnot(self.same_width(other)?)))
    }

    fn __xor__(&self, other: &Self) -> PyResult<Self> {
        Ok(Self(self.0.xor(self.same_width(other)?)))
    }

    fn __richcmp__(&self, other: &Self, op: CompareOp) -> PyResult<bool> {
        let (a, b) = (&self.0, &other.0);
        // Masks of two widths are unequal, but in no order.
        match op {
            CompareOp::Eq => return Ok(a == b),
            CompareOp::Ne => return Ok(a != b),
            CompareOp::Le | CompareOp::Lt | CompareOp::Ge | CompareOp::Gt => self.same_width(other)?,
        };
        Ok(match op {
            CompareOp::Le => a.is_subset_of(b),
            CompareOp::Lt => a.is_subset_of(b) && a != b,
            CompareOp::Ge => b.is_subset_of(a),
            _ => b.is_subset_of(a) && a != b,
        })
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        // The default state has fixed keys, so the hash is the same in each process.
        BuildHasherDefault::<DefaultHasher>::default().hash_one(&self.0)
    }

    fn __repr__(&self) -> String {
        format!("CpuMask.from_cpulist('{}', {})", self.0, self.0.nr_cpus())
    }

    fn __str__(&self) -> String {
        self.cpulist()
    }

    /// The list form is short where masks are regular, and readable in the pickle.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String, u32))> {
        let make = py.get_type::<Self>().getattr("from_cpulist")?;
        Ok((make, (self.cpulist(), self.0.nr_cpus())))
    }
}

impl PyCpuMask {
    fn same_width<'a>(&self, other: &'a Self) -> PyResult<&'a CpuMask> {
        let (found, expected) = (other.0.nr_cpus(), self.0.nr_cpus());
        if found == expected {
            return Ok(&other.0);
        }
        Err(value_error(Error::Value(format!("other mask: found {found} CPUs, expected {expected}"))))
    }
}

fn from_bools(bools: &PyReadonlyArray1<'_, bool>, nr_cpus: Option<u32>) -> PyResult<PyCpuMask> {
    let len = bools.len()?;
    let nr_cpus = nr_cpus.unwrap_or_else(|| u32::try_from(len).unwrap_or(u32::MAX));
    let mut mask = CpuMask::new(nr_cpus).map_err(value_error)?;
    if len != nr_cpus as usize {
        return Err(value_error(Error::Value(format!("bool array: found {len} elements, expected {nr_cpus}"))));
    }
    for (cpu, &is_set) in bools.as_array().iter().enumerate() {
        if is_set {
            mask.set(CpuId(cpu as u16));
        }
    }
    Ok(PyCpuMask(mask))
}

/// An integer (anything with `__index__`), or nothing if it does not fit; what is not an integer is a `TypeError`.
fn integer(value: &Bound<'_, PyAny>, what: &str) -> PyResult<Option<u16>> {
    match value.extract::<u16>() {
        Ok(number) => Ok(Some(number)),
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => {
            let found = value.get_type().name()?;
            Err(PyTypeError::new_err(format!("{what}: found {found}, expected an integer")))
        }
        Err(_) => Ok(None),
    }
}

pub(crate) fn width(nr_cpus: &Bound<'_, PyAny>) -> PyResult<u32> {
    if let Some(number) = integer(nr_cpus, "nr_cpus")? {
        return Ok(u32::from(number));
    }
    let max = tlbcore::cpumask::NR_CPUS_MAX;
    Err(value_error(Error::Value(format!("nr_cpus: found {}, expected 1 to {max}", nr_cpus.str()?))))
}

fn cpu_in(cpu: &Bound<'_, PyAny>, mask: &CpuMask) -> PyResult<CpuId> {
    let nr_cpus = mask.nr_cpus();
    match integer(cpu, "CPU")? {
        Some(number) if u32::from(number) < nr_cpus => Ok(CpuId(number)),
        _ => Err(value_error(Error::Value(format!("CPU: found {}, expected 0 to {}", cpu.str()?, nr_cpus - 1)))),
    }
}
