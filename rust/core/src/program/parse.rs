//! From the plain structure to a tree of steps; every error carries the path of its step.

use serde_json::{Map, Value};

use super::condition::{Condition, Test};
use super::instr::{LoopKind, PteFilter};
use super::leaf::{FlushScope, LEAVES_WITH_ARGUMENTS, Leaf, LockMode, LockName, MkWriteRule, PLAIN_LEAVES};
use super::leaf::{ProtSource, RangeArg};
use crate::addr::PAGE_SIZE;
use crate::error::{Error, Result};

/// The end of user space with five levels of page tables; with four, a machine finds nothing mapped behind its own end.
const LARGEST_USER_SPACE: u64 = 1 << 56;

/// A block of steps, as written.
pub type Block = Vec<Node>;

/// A step of the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A leaf step.
    Leaf(Leaf),
    /// A choice.
    When {
        /// The condition.
        condition: Condition,
        /// If it holds.
        then: Block,
        /// If not.
        otherwise: Block,
    },
    /// A loop.
    Loop {
        /// Over what.
        kind: LoopKind,
        /// For an ordinary item.
        body: Block,
        /// For a huge PMD.
        on_huge_pmd: Block,
        /// For an extent that is a whole table.
        on_pmd: Block,
    },
}

/// Where a step stands: `munmap[2].for_each_vma[0]`.
#[derive(Clone, Debug)]
pub struct Path {
    kernel: String,
    program: String,
    steps: String,
}

impl Path {
    /// The path of a program's top block.
    pub fn root(kernel: &str, program: &str) -> Self {
        Self { kernel: kernel.to_owned(), program: program.to_owned(), steps: program.to_owned() }
    }

    /// The path of the block's step number `index`.
    pub fn step(&self, index: usize) -> Self {
        Self { steps: format!("{}[{index}]", self.steps), ..self.clone() }
    }

    /// The path of a block inside the step.
    pub fn block(&self, name: &str) -> Self {
        Self { steps: format!("{}.{name}", self.steps), ..self.clone() }
    }

    /// An error at this place.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::Program {
            program: format!("{}:{}", self.kernel, self.program),
            step: self.steps.clone(),
            message: message.into(),
        }
    }
}

/// Reads a list of steps.
pub fn parse_block(value: &Value, path: &Path) -> Result<Block> {
    let list = value.as_array().ok_or_else(|| path.error("found no list, expected a list of steps"))?;
    list.iter().enumerate().map(|(index, step)| parse_step(step, &path.step(index))).collect()
}

fn parse_step(value: &Value, path: &Path) -> Result<Node> {
    let object = value.as_object().ok_or_else(|| path.error("found no object, expected a step"))?;
    let name = object
        .get("step")
        .and_then(Value::as_str)
        .ok_or_else(|| path.error("found no key step, expected the name of a step"))?;
    let node = match name {
        "when" => {
            expect_keys(object, &["if", "then", "else"], path)?;
            let condition = object.get("if").ok_or_else(|| path.error("found no key if, expected a condition"))?;
            Node::When {
                condition: parse_condition(condition, path)?,
                then: parse_part(object, "then", "when", path)?,
                otherwise: parse_part(object, "else", "else", path)?,
            }
        }
        _ => match loop_kind(name, object, path)? {
            Some(kind) => Node::Loop {
                kind,
                body: parse_part(object, "body", name, path)?,
                on_huge_pmd: parse_part(object, "on_huge_pmd", "on_huge_pmd", path)?,
                on_pmd: parse_part(object, "on_pmd", "on_pmd", path)?,
            },
            None => Node::Leaf(parse_leaf(name, object, path)?),
        },
    };
    Ok(node)
}

fn loop_kind(name: &str, object: &Map<String, Value>, path: &Path) -> Result<Option<LoopKind>> {
    let (kind, keys): (_, &[&str]) = match name {
        "for_each_vma" => (LoopKind::Vma, &["body"]),
        "for_each_rmap_vma" => (LoopKind::RmapVma, &["body"]),
        "for_each_table" => (LoopKind::Table, &["body", "on_huge_pmd"]),
        "for_each_pte" => {
            let filter = choice(object, "filter", PteFilter::ALL, PteFilter::parse, PteFilter::name, path)?;
            (LoopKind::Pte(filter), &["body", "filter"])
        }
        "for_each_extent" => (LoopKind::Extent, &["body", "on_pmd", "on_huge_pmd"]),
        "for_each_page" => (LoopKind::Page { keep: flag(object, "keep", path)? }, &["body", "keep"]),
        "for_each_mapping" => {
            let shared_only = flag(object, "shared_only", path)?;
            (LoopKind::Mapping { shared_only }, &["body", "on_huge_pmd", "shared_only"])
        }
        _ => return Ok(None),
    };
    expect_keys(object, keys, path)?;
    Ok(Some(kind))
}

fn parse_part(object: &Map<String, Value>, key: &str, label: &str, path: &Path) -> Result<Block> {
    object.get(key).map_or_else(|| Ok(Block::new()), |value| parse_block(value, &path.block(label)))
}

fn parse_leaf(name: &str, object: &Map<String, Value>, path: &Path) -> Result<Leaf> {
    if let Some((_, leaf)) = PLAIN_LEAVES.iter().find(|(plain, _)| *plain == name) {
        expect_keys(object, &[], path)?;
        return Ok(*leaf);
    }
    let leaf = match name {
        "lock" => {
            expect_keys(object, &["lock", "mode"], path)?;
            let lock = lock_name(object, path)?;
            Leaf::Lock { lock, mode: choice(object, "mode", LockMode::ALL, LockMode::parse, LockMode::name, path)? }
        }
        "unlock" => {
            expect_keys(object, &["lock"], path)?;
            Leaf::Unlock { lock: lock_name(object, path)? }
        }
        "downgrade" => {
            expect_keys(object, &["lock"], path)?;
            Leaf::Downgrade { lock: lock_name(object, path)? }
        }
        "select_range" => {
            expect_keys(object, &["range"], path)?;
            Leaf::SelectRange { range: choice(object, "range", RangeArg::ALL, RangeArg::parse, RangeArg::name, path)? }
        }
        "select_range_at" => {
            expect_keys(object, &["addr", "len", "prot"], path)?;
            let prot = match object.get("prot") {
                None | Some(Value::Null) => None,
                Some(found) => Some(
                    found
                        .as_u64()
                        .filter(|bits| *bits < 8)
                        .ok_or_else(|| path.error(format!("prot: found {found}, expected 0 to 7, or null")))?
                        as u32,
                ),
            };
            let (addr, len) = (number(object, "addr", path)?, number(object, "len", path)?);
            let fits = addr.checked_add(len).is_some_and(|end| end <= LARGEST_USER_SPACE);
            if !addr.is_multiple_of(PAGE_SIZE) || len == 0 || !fits {
                return Err(path.error(format!(
                    "found {addr:#x} + {len}, expected a page-aligned address and a length within user space"
                )));
            }
            Leaf::SelectRangeAt { addr, len, prot }
        }
        "pte_modify" => {
            expect_keys(object, &["prot"], path)?;
            Leaf::PteModify {
                prot: choice(object, "prot", ProtSource::ALL, ProtSource::parse, ProtSource::name, path)?,
            }
        }
        "pte_mkwrite" => {
            expect_keys(object, &["only_if"], path)?;
            let only_if = choice(object, "only_if", MkWriteRule::ALL, MkWriteRule::parse, MkWriteRule::name, path)?;
            Leaf::PteMkwrite { only_if }
        }
        "flush_tlb_range" => {
            expect_keys(object, &["range"], path)?;
            let range = choice(object, "range", FlushScope::ALL, FlushScope::parse, FlushScope::name, path)?;
            Leaf::FlushTlbRange { range }
        }
        "tlb_gather_mmu" => {
            expect_keys(object, &["fullmm", "light"], path)?;
            Leaf::TlbGatherMmu { fullmm: flag(object, "fullmm", path)?, light: flag(object, "light", path)? }
        }
        "set_pte_file" => {
            expect_keys(object, &["write"], path)?;
            Leaf::SetPteFile { write: flag(object, "write", path)? }
        }
        _ => {
            debug_assert!(!LEAVES_WITH_ARGUMENTS.contains(&name), "{name} has no arm");
            return Err(path.error(format!("found step {name}, expected a step of the language (see docs/steps.md)")));
        }
    };
    Ok(leaf)
}

fn lock_name(object: &Map<String, Value>, path: &Path) -> Result<LockName> {
    choice(object, "lock", LockName::ALL, LockName::parse, LockName::name, path)
}

fn parse_condition(value: &Value, path: &Path) -> Result<Condition> {
    if let Some(name) = value.as_str() {
        let test = Test::parse(name)
            .ok_or_else(|| path.error(format!("found condition {name}, expected one of docs/steps.md section 4")))?;
        return Ok(Condition::Test(test));
    }
    let single = value.as_object().filter(|o| o.len() == 1).and_then(|o| o.iter().next());
    match single.map(|(key, value)| (key.as_str(), value)) {
        Some(("not", inner)) => Ok(Condition::Not(Box::new(parse_condition(inner, path)?))),
        Some(("all", list)) => Ok(Condition::All(parse_conditions(list, path)?)),
        Some(("any", list)) => Ok(Condition::Any(parse_conditions(list, path)?)),
        _ => Err(path.error(format!("found condition {value}, expected a name, or not, all, any"))),
    }
}

fn parse_conditions(value: &Value, path: &Path) -> Result<Vec<Condition>> {
    let list = value.as_array().ok_or_else(|| path.error("found no list, expected a list of conditions"))?;
    list.iter().map(|c| parse_condition(c, path)).collect()
}

fn choice<T: Copy>(
    object: &Map<String, Value>,
    key: &str,
    all: &[T],
    parse: fn(&str) -> Option<T>,
    name: fn(T) -> &'static str,
    path: &Path,
) -> Result<T> {
    let found = object.get(key).and_then(Value::as_str).unwrap_or("nothing");
    parse(found).ok_or_else(|| {
        let expected: Vec<_> = all.iter().map(|t| name(*t)).collect();
        path.error(format!("{key}: found {found}, expected one of {}", expected.join(", ")))
    })
}

fn number(object: &Map<String, Value>, key: &str, path: &Path) -> Result<u64> {
    let found = object.get(key).unwrap_or(&Value::Null);
    found.as_u64().ok_or_else(|| path.error(format!("{key}: found {found}, expected a number of bytes")))
}

fn flag(object: &Map<String, Value>, key: &str, path: &Path) -> Result<bool> {
    match object.get(key) {
        None => Ok(false),
        Some(Value::Bool(b)) => Ok(*b),
        Some(other) => Err(path.error(format!("{key}: found {other}, expected true or false"))),
    }
}

fn expect_keys(object: &Map<String, Value>, keys: &[&str], path: &Path) -> Result<()> {
    for key in object.keys() {
        if key != "step" && key != "source" && !keys.contains(&key.as_str()) {
            let expected = if keys.is_empty() { "no arguments".to_owned() } else { keys.join(", ") };
            return Err(path.error(format!("found argument {key}, expected {expected}")));
        }
    }
    Ok(())
}
