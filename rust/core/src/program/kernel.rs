//! A resolved kernel, read from its plain structure and compiled.

use std::sync::Arc;

use serde_json::Value;

use super::compile::compile;
use super::constants::Constants;
use super::instr::Program;
use super::names::named_enum;
use super::parse::{Path, parse_block};
use super::validate::validate;
use crate::error::{Error, Result};

/// The one version of the plain structure that this release reads and writes.
pub const FORMAT_VERSION: u64 = 1;
/// The `format` of the plain structure.
pub const FORMAT_NAME: &str = "tlbcore-kernel";

named_enum! {
    /// The operations that a kernel has a program for.
    ProgramName {
        /// Map memory.
        Mmap = "mmap",
        /// Unmap memory.
        Munmap = "munmap",
        /// Change protection.
        Mprotect = "mprotect",
        /// Move or resize a mapping.
        Mremap = "mremap",
        /// `MADV_DONTNEED`.
        MadviseDontneed = "madvise_dontneed",
        /// `MADV_FREE`.
        MadviseFree = "madvise_free",
        /// `MADV_COLD`.
        MadviseCold = "madvise_cold",
        /// `MADV_PAGEOUT`.
        MadvisePageout = "madvise_pageout",
        /// Write 4 to `/proc/self/clear_refs`.
        ClearRefsSoftDirty = "clear_refs_soft_dirty",
        /// Copy an address space.
        Fork = "fork",
        /// Tear one down.
        ExitMmap = "exit_mmap",
        /// Handle a page fault.
        Fault = "fault",
        /// Clean pages for writeback.
        PageMkclean = "page_mkclean",
        /// Reclaim a list of pages.
        ShrinkFolioList = "shrink_folio_list",
        /// Migrate pages.
        MigratePages = "migrate_pages",
        /// Make pages fault for NUMA balancing.
        ChangeProtNuma = "change_prot_numa",
        /// Zap a file's pages from all mappings.
        UnmapMappingRange = "unmap_mapping_range",
        /// Write-protect a file's pages in all mappings.
        WpSharedMappingRange = "wp_shared_mapping_range",
        /// Replace small pages by a huge one.
        CollapseHugePage = "collapse_huge_page",
        /// Merge pages of one content.
        KsmMerge = "ksm_merge",
        /// Not of a kernel: what the caller of the operation `run` wrote.
        Custom = "custom",
    }
}

impl ProgramName {
    /// Those that every kernel has: all but the last.
    pub const OF_A_KERNEL: &'static [Self] = match Self::ALL.split_last() {
        Some((_, programs)) => programs,
        None => &[],
    };
}

/// A kernel ready to run: its constants and one program per operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompiledKernel {
    /// The kernel's name, as `linux-6.18`.
    pub name: String,
    /// Its constants.
    pub constants: Constants,
    programs: Vec<Arc<Program>>,
}

impl CompiledKernel {
    /// Reads, validates and compiles the plain structure (JSON text).
    ///
    /// # Errors
    /// One line: what is wrong with the structure, or the path of the step that cannot be.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|e| Error::Value(format!("kernel is not JSON: {e}")))?;
        Self::from_value(&value)
    }

    /// Validates and compiles the plain structure.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_value(value: &Value) -> Result<Self> {
        let object = value.as_object().ok_or_else(|| Error::Value("kernel is not an object".to_owned()))?;
        let known =
            ["format", "version", "name", "title", "source", "switches", "constants", "schemes", "sources", "programs"];
        for key in object.keys() {
            if !known.contains(&key.as_str()) {
                return Err(Error::Value(format!("kernel: unknown key {key}, expected one of {}", known.join(", "))));
            }
        }
        let format = object.get("format").and_then(Value::as_str).unwrap_or("nothing");
        if format != FORMAT_NAME {
            return Err(Error::Value(format!("kernel: found format {format}, expected {FORMAT_NAME}")));
        }
        let version = object.get("version").and_then(Value::as_u64);
        if version != Some(FORMAT_VERSION) {
            let found = object.get("version").map_or_else(|| "none".to_owned(), ToString::to_string);
            return Err(Error::Value(format!("kernel: found version {found}, expected {FORMAT_VERSION}")));
        }
        let name = object.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err(Error::Value("kernel: found no name, expected a text".to_owned()));
        }
        let constants = Constants::from_value(object.get("constants").unwrap_or(&Value::Null))
            .map_err(|e| Error::Value(format!("kernel {name}: {e}")))?;
        let programs = object
            .get("programs")
            .and_then(Value::as_object)
            .ok_or_else(|| Error::Value(format!("kernel {name}: found no programs, expected an object")))?;
        for key in programs.keys() {
            if ProgramName::parse(key).is_none_or(|program| program == ProgramName::Custom) {
                return Err(Error::Value(format!("kernel {name}: unknown program {key}")));
            }
        }
        let programs = ProgramName::OF_A_KERNEL
            .iter()
            .map(|program| {
                let block = programs
                    .get(program.name())
                    .ok_or_else(|| Error::Value(format!("kernel {name}: program {} is missing", program.name())))?;
                let path = Path::root(&name, program.name());
                let block = parse_block(block, &path)?;
                validate(&block, *program, &path)?;
                Ok(Arc::new(compile(&block)))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { name, constants, programs })
    }

    /// Compiles a program for this kernel that is none of its own (operation `run`).
    ///
    /// # Errors
    /// The path of the step that cannot be, from `custom[0]` on.
    pub fn compile_custom(&self, steps: &Value) -> Result<Program> {
        let path = Path::root(&self.name, ProgramName::Custom.name());
        let block = parse_block(steps, &path)?;
        validate(&block, ProgramName::Custom, &path)?;
        Ok(compile(&block))
    }

    /// The program of an operation, to be kept while it runs.
    pub fn shared_program(&self, name: ProgramName) -> Arc<Program> {
        Arc::clone(&self.programs[name as usize])
    }

    /// The program of an operation, which is one of [`ProgramName::OF_A_KERNEL`].
    pub fn program(&self, name: ProgramName) -> &Program {
        &self.programs[name as usize]
    }
}
