//! `PageTable` for Python: the page tables of one address space, with the operations on ranges of the core.

use std::sync::{Mutex, PoisonError};

use numpy::PyArray1;
use pyo3::prelude::*;
use tlbcore::addr::{Levels, PAGE_SIZE, Pfn, VaRange, VirtAddr};
use tlbcore::error::Error;
use tlbcore::page_table::{PageTables, Prot, RangeSummary, TableId};

use crate::errors::Result;

/// What an operation on a range met and did, in pages of 4 KiB.
#[pyclass(frozen, get_all, module = "tlbcore", name = "RangeSummary")]
pub struct PyRangeSummary {
    /// Pages that were present.
    nr_present: u64,
    /// Pages whose entry has another value now.
    nr_changed: u64,
    /// Pages that were present and dirty.
    nr_dirty: u64,
    /// Pages that were present and young.
    nr_young: u64,
    /// The first byte of the first changed page.
    changed_start: u64,
    /// The byte after the last changed page; equal to ``changed_start`` when none changed.
    changed_end: u64,
}

#[pymethods]
impl PyRangeSummary {
    fn __repr__(&self) -> String {
        format!(
            "RangeSummary(nr_present={}, nr_changed={}, nr_dirty={}, nr_young={}, changed_start={:#x}, changed_end={:#x})",
            self.nr_present, self.nr_changed, self.nr_dirty, self.nr_young, self.changed_start, self.changed_end
        )
    }
}

impl From<RangeSummary> for PyRangeSummary {
    fn from(summary: RangeSummary) -> Self {
        Self {
            nr_present: summary.nr_present,
            nr_changed: summary.nr_changed,
            nr_dirty: summary.nr_dirty,
            nr_young: summary.nr_young,
            changed_start: summary.changed.start.0,
            changed_end: summary.changed.end.0,
        }
    }
}

struct AddressSpace {
    tables: PageTables,
    root: TableId,
}

/// The page tables of one address space, as x86-64 lays them out: ``PageTable(levels=4)``, 4 or 5 levels.
///
/// Addresses are in bytes and multiples of 4096; rights are ``"none"``, ``"r"``, ``"rw"``, ``"rx"`` or ``"rwx"``.
#[pyclass(frozen, module = "tlbcore", name = "PageTable")]
pub struct PyPageTable(Mutex<AddressSpace>);

#[pymethods]
impl PyPageTable {
    #[new]
    #[pyo3(signature = (levels = 4))]
    fn new(levels: u8) -> Result<Self> {
        let levels = match levels {
            4 => Levels::Four,
            5 => Levels::Five,
            found => return Err(Error::Value(format!("levels: found {found}, expected 4 or 5")).into()),
        };
        let mut tables = PageTables::new(levels);
        let root = tables.alloc_root();
        Ok(Self(Mutex::new(AddressSpace { tables, root })))
    }

    /// Map pages to consecutive frames from ``first_pfn`` on, whatever was mapped there.
    #[pyo3(signature = (start, nr_pages, first_pfn, prot = "rw"))]
    fn map(&self, start: u64, nr_pages: u64, first_pfn: u64, prot: &str) -> Result<PyRangeSummary> {
        let prot = rights(prot)?;
        self.on_range(start, nr_pages, |space, range| {
            space.tables.map_range(space.root, range, Pfn(first_pfn), prot).map(PyRangeSummary::from)
        })
    }

    /// Give the present entries other rights.
    fn protect(&self, start: u64, nr_pages: u64, prot: &str) -> Result<PyRangeSummary> {
        let prot = rights(prot)?;
        self.on_range(start, nr_pages, |space, range| Ok(space.tables.protect_range(space.root, range, prot).into()))
    }

    /// Empty all entries; the tables stay.
    fn clear(&self, start: u64, nr_pages: u64) -> Result<PyRangeSummary> {
        self.on_range(start, nr_pages, |space, range| Ok(space.tables.clear_range(space.root, range).into()))
    }

    /// Take the dirty bit of the present entries.
    fn mkclean(&self, start: u64, nr_pages: u64) -> Result<PyRangeSummary> {
        self.on_range(start, nr_pages, |space, range| Ok(space.tables.mkclean_range(space.root, range).into()))
    }

    /// Move what is mapped to a free place, by whole tables where both addresses allow.
    #[pyo3(name = "move")]
    fn move_range(&self, old_start: u64, new_start: u64, nr_pages: u64) -> Result<()> {
        self.on_range(old_start, nr_pages, |space, range| {
            space.tables.move_range(space.root, range.start, VirtAddr(new_start), range.len_bytes())
        })
    }

    /// The entries of 4 KiB pages as a uint64 array of ``nr_pages`` elements, 0 where no table is.
    fn entries<'py>(&self, py: Python<'py>, start: u64, nr_pages: u64) -> Result<Bound<'py, PyArray1<u64>>> {
        let entries = self.on_range(start, nr_pages, |space, range| {
            let pages = (range.start.0..range.end.0).step_by(PAGE_SIZE as usize);
            Ok(pages.map(|va| space.tables.leaf(space.root, VirtAddr(va)).map_or(0, |(pte, _)| pte.0)).collect())
        })?;
        Ok(PyArray1::from_vec(py, entries))
    }

    /// How many tables there are, the top one included.
    #[getter]
    fn nr_tables(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tables.nr_tables()
    }
}

impl PyPageTable {
    fn on_range<T>(
        &self,
        start: u64,
        nr_pages: u64,
        work: impl FnOnce(&mut AddressSpace, VaRange) -> tlbcore::error::Result<T>,
    ) -> Result<T> {
        let mut space = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let range = space.tables.range_of_pages(VirtAddr(start), nr_pages)?;
        Ok(work(&mut space, range)?)
    }
}

fn rights(prot: &str) -> Result<Prot> {
    Ok(match prot {
        "none" => Prot::NONE,
        "r" => Prot::READONLY,
        "rx" => Prot::READONLY_EXEC,
        "rw" => Prot::SHARED,
        "rwx" => Prot::SHARED_EXEC,
        found => {
            let what = format!("prot: found `{found}`, expected none, r, rw, rx or rwx");
            return Err(Error::Value(what).into());
        }
    })
}
