//! Plans of programs: what is accepted, what is refused and with which path, and what the code looks like.

use serde_json::{Value, json};
use tlbcore::program::{
    CompiledKernel, Instr, Leaf, LoopKind, ProgramName, condition_names, program_names, step_names,
};

fn constants() -> Value {
    json!({
        "tlb_single_page_flush_ceiling": 33, "tlb_nr_dyn_asids": 6, "gather_bundle": 8, "gather_batch": 510,
        "gather_batch_count": 19, "gather_batches_folios": false, "mm_cpumask_rule": "eager", "should_flush_tlb": "is_lazy",
        "trim_cpumask_interval_ns": 1_000_000_000u64, "flush_skips_old_gen": true, "flush_tlb_range_freed_tables": true,
        "local_flush_first": false, "batched_pending": "counter", "pending_tracking": "mm", "lazy_mmu": "none",
        "lazy_mmu_batch": 0, "fault_around_pages": 16, "swap_cluster_max": 32, "cow_reuse": "page_count", "read_fault_keeps_dirty": false, "lru_add_batch": 15, "unmapping_drains_lru": true, "swap_in_mkwrite": "write_fault",
        "mprotect_unaccounts": false, "split_maps_zero_pages": false, "anon_vma_merges_either_way": false,
        "pmd_move": true, "pud_move": true, "thp": "never",
    })
}

fn kernel(program: &str, steps: &Value) -> Value {
    let mut programs: serde_json::Map<String, Value> =
        program_names().iter().map(|name| ((*name).to_owned(), json!([]))).collect();
    programs.insert(program.to_owned(), steps.clone());
    json!({"format": "tlbcore-kernel", "version": 1, "name": "test", "constants": constants(), "programs": programs})
}

fn refusal(program: &str, steps: &Value) -> String {
    CompiledKernel::from_value(&kernel(program, steps)).expect_err("must be refused").to_string()
}

#[test]
fn a_loop_jumps_back_and_out() {
    let steps = json!([
        {"step": "tlb_gather_mmu"},
        {"step": "for_each_vma", "body": [{"step": "count_changed"}]},
        {"step": "when", "if": "any_changed", "then": [{"step": "flush_tlb_mm"}], "else": [{"step": "count_changed"}]},
        {"step": "tlb_finish_mmu"},
    ]);
    let kernel = CompiledKernel::from_value(&kernel("munmap", &steps)).expect("fits");
    let code = &kernel.program(ProgramName::Munmap).code;
    assert_eq!(code[0], Instr::Leaf(Leaf::TlbGatherMmu { fullmm: false, light: false }));
    assert_eq!(code[1], Instr::Enter(LoopKind::Vma));
    assert_eq!(code[2], Instr::Next { body: 3, on_huge_pmd: 2, on_pmd: 2, exit: 5 });
    assert_eq!(code[4], Instr::Jump(2));
    assert!(matches!(&code[5], Instr::BranchUnless { target: 8, asks_for_flush: false, .. }));
    assert_eq!(code[7], Instr::Jump(9));
    assert_eq!(code[9], Instr::Leaf(Leaf::TlbFinishMmu));
    assert_eq!(code[10], Instr::End);
}

#[test]
fn an_offending_step_is_named_by_its_path() {
    let steps = json!([
        {"step": "for_each_vma", "body": [
            {"step": "for_each_table", "body": [{"step": "ptep_frobnicate"}]}]}]);
    assert_eq!(
        refusal("munmap", &steps),
        "program test:munmap: step munmap[0].for_each_vma[0].for_each_table[0]: found step ptep_frobnicate, \
         expected a step of the language (see docs/steps.md)"
    );
}

#[test]
fn impossible_steps_are_refused() {
    let cases = [
        (json!([{"step": "tlb_finish_mmu"}]), "munmap[0]: tlb_finish_mmu needs an open mmu_gather"),
        (json!([{"step": "tlb_gather_mmu"}]), "munmap[1]: the mmu_gather is still open at the end"),
        (json!([{"step": "lock", "lock": "ptl", "mode": "write"}]), "munmap[1]: ptl is still held at the end"),
        (json!([{"step": "unlock", "lock": "ptl"}]), "munmap[0]: ptl is not held"),
        (json!([{"step": "ptep_get_and_clear"}]), "munmap[0]: ptep_get_and_clear needs a current entry"),
        (json!([{"step": "dup_mm"}]), "munmap[0]: dup_mm has no meaning in munmap, only in fork"),
        (json!([{"step": "for_each_pte", "filter": "present", "body": []}]), "for_each_pte cannot stand here"),
        (json!([{"step": "inc_tlb_flush_pending"}]), "tlb_flush_pending is still raised at the end"),
        (json!([{"step": "flush_tlb_range", "range": "all"}]), "range: found all, expected one of vma, table"),
        (json!([{"step": "flush_tlb_mm", "hard": true}]), "found argument hard, expected no arguments"),
        (json!([{"step": "when", "if": "sunny", "then": []}]), "found condition sunny"),
        (
            json!([{"step": "when", "if": "dirty", "then": [{"step": "tlb_gather_mmu"}]}]),
            "the two ways of when do not end alike: gather open against nothing held",
        ),
        (
            json!([{"step": "for_each_vma", "body": [{"step": "lock", "lock": "rmap_lock", "mode": "read"}]}]),
            "the block for_each_vma does not end as it began",
        ),
        (
            json!([{"step": "for_each_vma", "body": [{"step": "for_each_table", "body": [
                {"step": "for_each_pte", "filter": "present", "body": [{"step": "ptep_get_and_clear"}]}]}]}]),
            "ptep_get_and_clear needs ptl or pml held",
        ),
        (json!({"step": "flush_tlb_mm"}), "found no list, expected a list of steps"),
        (json!(["flush_tlb_mm"]), "found no object, expected a step"),
    ];
    for (steps, expected) in cases {
        let message = refusal("munmap", &steps);
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
        assert!(!message.contains('\n'), "{message:?} is more than one line");
    }
}

#[test]
fn a_huge_entry_on_the_list_may_be_worked_off_where_it_stood() {
    let list = json!([{"step": "for_each_page", "body": [{"step": "pageout"}]}]);
    let walk = |on_huge_pmd: Value| json!([{"step": "for_each_vma", "body": [{"step": "for_each_table", "body": [], "on_huge_pmd": on_huge_pmd}]}]);
    CompiledKernel::from_value(&kernel("madvise_pageout", &walk(list.clone()))).expect("fits");
    let nested = json!([{"step": "for_each_page", "body": list}]);
    assert!(refusal("madvise_pageout", &walk(nested)).contains("for_each_page cannot stand here"));
    let at_a_mapping =
        json!([{"step": "for_each_page", "body": [{"step": "for_each_mapping", "body": [], "on_huge_pmd": list}]}]);
    assert!(refusal("madvise_pageout", &at_a_mapping).contains("for_each_page cannot stand here"));
}

#[test]
fn a_wrong_structure_is_refused() {
    let mut future = kernel("munmap", &json!([]));
    future["version"] = json!(2);
    assert_eq!(CompiledKernel::from_value(&future).unwrap_err().to_string(), "kernel: found version 2, expected 1");
    let mut incomplete = kernel("munmap", &json!([]));
    incomplete["programs"].as_object_mut().expect("object").remove("fork");
    assert_eq!(
        CompiledKernel::from_value(&incomplete).unwrap_err().to_string(),
        "kernel test: program fork is missing"
    );
    assert!(CompiledKernel::from_json("{").unwrap_err().to_string().starts_with("kernel is not JSON"));
}

#[test]
fn a_wrong_constant_is_named() {
    let refused = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut odd = kernel("munmap", &json!([]));
        change(odd["constants"].as_object_mut().expect("object"));
        CompiledKernel::from_value(&odd).unwrap_err().to_string()
    };
    let with = |name: &str, value: Value| refused(&|constants| drop(constants.insert(name.to_owned(), value.clone())));
    for (name, value, expected) in [
        ("fault_around_pages", json!(3), "found 3, expected a power of two up to 512"),
        (
            "tlb_single_page_flush_ceiling",
            json!("33"),
            "found \"33\", expected a whole number from 0 to 18446744073709551615",
        ),
        ("tlb_nr_dyn_asids", json!(65536), "found 65536, expected a whole number from 0 to 65535"),
        ("tlb_nr_dyn_asids", json!(4095), "found 4095, expected at most 4094"),
        ("gather_batch", json!(-1), "found -1, expected a whole number from 0 to 4294967295"),
        ("gather_bundle", json!(0), "found 0, expected at least 1"),
        ("pud_move", json!("yes"), "found \"yes\", expected true or false"),
        ("mm_cpumask_rule", json!("late"), "found \"late\", expected one of eager, lazy"),
        ("thp", json!(null), "found null, expected one of never, madvise, always"),
    ] {
        assert_eq!(with(name, value), format!("kernel test: constant {name}: {expected}"));
    }
    assert_eq!(with("lazy_mmu", json!("per_pte")), {
        "kernel test: constant lazy_mmu_batch: found 0, expected at least 1 with a lazy_mmu"
    });
    assert_eq!(
        refused(&|constants| drop(constants.remove("thp"))),
        "kernel test: constant thp: found nothing, expected one of never, madvise, always"
    );
    assert!(with("ceiling", json!(1)).starts_with(
        "kernel test: found constant ceiling, expected one of tlb_single_page_flush_ceiling, tlb_nr_dyn_asids, "
    ));
    let mut none = kernel("munmap", &json!([]));
    none["constants"] = json!(7);
    let message = CompiledKernel::from_value(&none).unwrap_err().to_string();
    assert_eq!(message, "kernel test: constants: found 7, expected an object");
}

#[test]
fn every_step_condition_and_program_is_documented() {
    let page = include_str!("../../../docs/steps.md");
    for name in step_names().iter().chain(&condition_names()).chain(&program_names()) {
        assert!(page.contains(name), "docs/steps.md does not mention {name}");
    }
}
