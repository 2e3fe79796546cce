//! `CpuMask` against the simplest model there is: a sorted set of numbers.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use tlbcore::cpumask::{CpuId, CpuMask, NR_CPUS_MAX};

type Model = BTreeSet<u16>;

/// Widths where words begin and end, the largest, and any other.
fn width() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => prop::sample::select(vec![1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129]),
        1 => prop::sample::select(vec![4096, 8191, NR_CPUS_MAX]),
        2 => 1..=NR_CPUS_MAX,
    ]
}

/// Subsets of `0..width`: single CPUs and runs, so that both sparse and dense words occur; sometimes inverted.
fn model(width: u32) -> impl Strategy<Value = Model> {
    let cpu = 0..width as u16;
    let singles = vec(cpu.clone(), 0..20);
    let runs = vec((cpu, 1_u16..100), 0..4);
    (singles, runs, any::<bool>()).prop_map(move |(singles, runs, inverted)| {
        let mut model: Model = singles.into_iter().collect();
        for (start, len) in runs {
            model.extend(start..(start + len).min(width as u16));
        }
        if inverted { (0..width as u16).filter(|cpu| !model.contains(cpu)).collect() } else { model }
    })
}

fn one() -> impl Strategy<Value = (u32, Model)> {
    width().prop_flat_map(|width| (Just(width), model(width)))
}

fn two() -> impl Strategy<Value = (u32, Model, Model)> {
    // The second is at times the first or a part of it: independent sets are next to never subsets of one another.
    width().prop_flat_map(|width| (Just(width), model(width), model(width), 0..4_u8)).prop_map(|(width, a, b, kind)| {
        let b = match kind {
            0 => a.clone(),
            1 => &a & &b,
            2 => &a | &b,
            _ => b,
        };
        (width, a, b)
    })
}

fn mask(width: u32, model: &Model) -> CpuMask {
    CpuMask::from_cpus(width, model.iter().copied().map(CpuId)).expect("the model is within the width")
}

fn set(mask: &CpuMask) -> Model {
    mask.iter().map(|cpu| cpu.0).collect()
}

fn full(width: u32) -> CpuMask {
    let mut mask = CpuMask::new(width).expect("a legal width");
    mask.set_all();
    mask
}

fn message<T: std::fmt::Debug>(result: tlbcore::error::Result<T>) -> String {
    result.expect_err("should be refused").to_string()
}

proptest! {
    #[test]
    fn queries_agree_with_the_model((width, model) in one(), probe: u16) {
        let mask = mask(width, &model);
        prop_assert_eq!(mask.nr_cpus(), width);
        prop_assert_eq!(mask.weight() as usize, model.len());
        prop_assert_eq!(mask.is_empty(), model.is_empty());
        prop_assert!(mask.iter().map(|cpu| cpu.0).eq(model.iter().copied()));
        prop_assert_eq!(mask.first().map(|cpu| cpu.0), model.first().copied());
        for probe in [probe, probe % width as u16, width as u16 - 1, u16::MAX] {
            let above = probe.checked_add(1).and_then(|from| model.range(from..).next().copied());
            prop_assert_eq!(mask.next(CpuId(probe)).map(|cpu| cpu.0), above);
        }
        let lowest = mask.first().unwrap_or_default();
        for probe in [CpuId(probe), lowest] {
            let other = model.iter().copied().find(|&cpu| cpu != probe.0);
            prop_assert_eq!(mask.any_but(probe).map(|cpu| cpu.0), other);
        }
        for cpu in 0..width as u16 {
            prop_assert_eq!(mask.test(CpuId(cpu)), model.contains(&cpu));
        }
    }

    #[test]
    fn single_bits_agree_with_the_model((width, mut model) in one(), steps in vec((0..4_u8, any::<u16>()), 0..60)) {
        let mut mask = mask(width, &model);
        for (step, cpu) in steps {
            let cpu = cpu % width as u16;
            match step {
                0 => { mask.set(CpuId(cpu)); model.insert(cpu); }
                1 => { mask.clear(CpuId(cpu)); model.remove(&cpu); }
                2 => prop_assert_eq!(!mask.test_and_set(CpuId(cpu)), model.insert(cpu)),
                _ => prop_assert_eq!(mask.test_and_clear(CpuId(cpu)), model.remove(&cpu)),
            }
        }
        prop_assert_eq!(set(&mask), model);
        mask.clear_all();
        prop_assert_eq!(mask, CpuMask::new(width)?);
    }

    #[test]
    fn two_masks_agree_with_the_model((width, a, b) in two()) {
        let (x, y) = (mask(width, &a), mask(width, &b));
        prop_assert_eq!(set(&x.or(&y)), &a | &b);
        prop_assert_eq!(set(&x.and(&y)), &a & &b);
        prop_assert_eq!(set(&x.andnot(&y)), &a - &b);
        prop_assert_eq!(set(&x.xor(&y)), &a ^ &b);
        prop_assert_eq!(x.weight_and(&y) as usize, a.intersection(&b).count());
        prop_assert!(x.iter_and(&y).map(|cpu| cpu.0).eq(a.intersection(&b).copied()));
        prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
        prop_assert_eq!(x.is_subset_of(&y), a.is_subset(&b));
        prop_assert_eq!(x == y, a == b);
    }

    #[test]
    fn assigning_is_the_same_as_making_anew((width, a, b) in two()) {
        let (x, y) = (mask(width, &a), mask(width, &b));
        let assigned = |op: fn(&mut CpuMask, &CpuMask)| { let mut z = x.clone(); op(&mut z, &y); z };
        prop_assert_eq!(assigned(CpuMask::or_assign), x.or(&y));
        prop_assert_eq!(assigned(CpuMask::and_assign), x.and(&y));
        prop_assert_eq!(assigned(CpuMask::andnot_assign), x.andnot(&y));
        prop_assert_eq!(assigned(CpuMask::xor_assign), x.xor(&y));
        prop_assert_eq!(assigned(CpuMask::copy_from), y.clone());
        prop_assert_eq!(assigned(CpuMask::clone_from), y.clone());
        let mut other_width = CpuMask::new(7)?;
        other_width.clone_from(&x);
        prop_assert_eq!(&other_width, &x);
        let mut fused = x.clone();
        prop_assert_eq!(fused.or_assign_weight(&y), x.or(&y).weight());
        prop_assert_eq!(fused, x.or(&y));
    }

    #[test]
    fn laws_of_boole((width, a, b) in two()) {
        let (x, y, all) = (mask(width, &a), mask(width, &b), full(width));
        let not = |m: &CpuMask| all.andnot(m);
        prop_assert_eq!(not(&x.or(&y)), not(&x).and(&not(&y)));
        prop_assert_eq!(not(&x.and(&y)), not(&x).or(&not(&y)));
        prop_assert_eq!(&not(&not(&x)), &x);
        prop_assert_eq!(x.andnot(&y), x.and(&not(&y)));
        prop_assert_eq!(x.xor(&y), x.or(&y).andnot(&x.and(&y)));
        prop_assert_eq!(x.or(&y).weight() + x.weight_and(&y), x.weight() + y.weight());
        prop_assert_eq!(x.is_subset_of(&y), x.or(&y) == y);
        prop_assert_eq!(x.weight() + not(&x).weight(), width);
    }

    #[test]
    fn ranges_agree_with_the_model((width, mut model) in one(), first: u16, last: u16) {
        let (first, last) = (first % width as u16, last % width as u16);
        let mut mask = mask(width, &model);
        mask.set_range(CpuId(first), CpuId(last));
        model.extend(first..=last);
        prop_assert_eq!(set(&mask), model);
    }

    #[test]
    fn words_and_texts_go_there_and_back((width, model) in one()) {
        let mask = mask(width, &model);
        prop_assert_eq!(&CpuMask::from_words(width, mask.words())?, &mask);
        let list = mask.to_string();
        prop_assert_eq!(&CpuMask::from_cpulist(&list, width)?, &mask);
        prop_assert_eq!(&CpuMask::from_cpulist(&format!("\t{} \n", list.replace(',', " , ")), width)?, &mask);
        let hex = format!("{mask:x}");
        prop_assert_eq!(&CpuMask::from_hex_mask(&hex, width)?, &mask);
        // The top group of `hex` may be short of 8 digits, so a further group goes before it, not digits.
        prop_assert_eq!(&CpuMask::from_hex_mask(&format!(" 0,{}\n", hex.to_uppercase()), width)?, &mask);
        // Digits depend on the width alone: one for each 4 CPUs; a comma before each further 32.
        prop_assert_eq!(hex.len() as u32, width.div_ceil(4) + (width - 1) / 32);
    }

    #[test]
    fn grouped_ranges_agree_with_the_model(width in width(), a: u16, b: u16, group in 1..200_u16, used: u16) {
        let (a, b, used) = (a % width as u16, b % width as u16, used % (group + 1));
        let (first, last) = (a.min(b), a.max(b));
        let mask = CpuMask::from_cpulist(&format!("{first}-{last}:{used}/{group}"), width)?;
        let expected: Model = (first..=last).filter(|cpu| (cpu - first) % group < used).collect();
        prop_assert_eq!(set(&mask), expected);
    }

    #[test]
    fn any_text_gives_a_mask_or_one_line(
        text in prop_oneof![".*", "[0-9,:/ -]{0,30}", "[0-9a-fA-F,\n]{0,40}"],
        width in width(),
    ) {
        for result in [CpuMask::from_cpulist(&text, width), CpuMask::from_hex_mask(&text, width)] {
            match result {
                Ok(mask) => prop_assert!(mask.iter().all(|cpu| u32::from(cpu.0) < width)),
                Err(error) => {
                    let line = error.to_string();
                    let parts = ["column ", "found ", "expected "];
                    prop_assert!(parts.iter().all(|part| line.contains(part)) && line.lines().count() == 1, "{}", line);
                }
            }
        }
    }

    #[test]
    fn masks_made_in_two_ways_hash_alike((width, a, b) in two()) {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let hash = |m: &CpuMask| BuildHasherDefault::<DefaultHasher>::default().hash_one(m);
        let (mut x, y) = (mask(width, &a), mask(width, &b));
        x.or_assign(&y);
        x.and_assign(&y);
        prop_assert_eq!(hash(&x), hash(&y));
    }
}

#[test]
fn texts_are_those_of_linux() {
    let mask = CpuMask::from_cpulist("0-1,32-39", 40).expect("a list");
    assert_eq!(format!("{mask:x}"), "ff,00000003");
    assert_eq!(mask.to_string(), "0-1,32-39");
    assert_eq!(format!("{mask:?}"), "CpuMask(0-1,32-39 of 40)");
    assert_eq!(mask.words(), [0xff_0000_0003]);
    assert_eq!(CpuMask::from_hex_mask("ff,3", 40).expect("a mask"), mask);

    let grouped = CpuMask::from_cpulist("0-31:2/4", 64).expect("a grouped list");
    assert_eq!(grouped.words(), [0x3333_3333]);
    assert_eq!(CpuMask::from_cpulist("1-6:2/4,9", 16).expect("a cut group").to_string(), "1-2,5-6,9");
    assert_eq!(CpuMask::from_cpulist("\n", 3).expect("an empty list").to_string(), "");
    assert_eq!(format!("{:x}", full(3)), "7");
    assert_eq!(format!("{:x}", full(65)), "1,ffffffff,ffffffff");
    assert_eq!(full(NR_CPUS_MAX).to_string(), "0-8191");
}

#[test]
fn errors_name_the_column_and_both_sides() {
    let list = |text| message(CpuMask::from_cpulist(text, 64));
    assert_eq!(list("0-3,x"), r#"cpulist "0-3,x": column 5: found "x", expected a CPU number"#);
    assert_eq!(list("0-"), r#"cpulist "0-": column 3: found the end, expected a CPU number"#);
    assert_eq!(list("1,64"), r#"cpulist "1,64": column 3: found CPU 64, expected 0 to 63"#);
    assert_eq!(list("99999999999"), r#"cpulist "99999999999": column 1: found CPU 99999999999, expected 0 to 63"#);
    assert_eq!(
        list("5-3"),
        r#"cpulist "5-3": column 1: found 5-3, expected a range whose end is not before its start"#
    );
    assert_eq!(list("1 2"), r#"cpulist "1 2": column 3: found "2", expected "," or the end"#);
    assert_eq!(list("1,"), r#"cpulist "1,": column 3: found the end, expected a CPU number"#);
    assert_eq!(
        list("0-7:3/2"),
        r#"cpulist "0-7:3/2": column 5: found 3/2, expected at least 1 CPU a group and no more used than that"#
    );
    assert_eq!(list("0-7:3"), r#"cpulist "0-7:3": column 6: found the end, expected "/" and the size of the groups"#);
    assert_eq!(
        list(&"é".repeat(50)),
        format!(r#"cpulist "{}...": column 1: found "é", expected a CPU number"#, "é".repeat(40))
    );

    let hex = |text| message(CpuMask::from_hex_mask(text, 40));
    assert_eq!(hex(""), r#"cpumask "": column 1: found the end, expected a hexadecimal digit"#);
    assert_eq!(hex("0x3"), r#"cpumask "0x3": column 2: found "x", expected a hexadecimal digit, "," or the end"#);
    assert_eq!(hex("1ff,0"), r#"cpumask "1ff,0": column 1: found CPU 40, expected CPUs 0 to 39"#);
    assert_eq!(hex("0,80000000,0,0"), r#"cpumask "0,80000000,0,0": column 3: found CPU 95, expected CPUs 0 to 39"#);
    assert_eq!(
        hex("123456789"),
        r#"cpumask "123456789": column 9: found "9", expected "," after 8 hexadecimal digits"#
    );
}

#[test]
fn input_edges_refuse() {
    assert_eq!(message(CpuMask::new(0)), "nr_cpus: found 0, expected 1 to 8192");
    assert_eq!(message(CpuMask::new(NR_CPUS_MAX + 1)), "nr_cpus: found 8193, expected 1 to 8192");
    assert_eq!(message(CpuMask::from_words(65, &[0])), "words of a mask of 65 CPUs: found 1, expected 2");
    assert_eq!(message(CpuMask::from_words(65, &[0, 4])), "CPU: found 66, expected 0 to 64");
    let mut mask = CpuMask::new(4).expect("a legal width");
    assert_eq!(message(mask.try_set(CpuId(4))), "CPU: found 4, expected 0 to 3");
    assert!(mask.is_empty());
    assert_eq!(message(CpuMask::from_cpus(4, [CpuId(1), CpuId(9)])), "CPU: found 9, expected 0 to 3");
}

#[test]
#[should_panic(expected = "CPU 4 is outside a mask of 4 CPUs")]
fn a_cpu_outside_is_a_bug_of_the_caller() {
    full(4).test(CpuId(4));
}

#[test]
#[should_panic(expected = "masks of different widths: 4 and 5 CPUs")]
fn masks_of_two_widths_are_a_bug_of_the_caller() {
    full(4).intersects(&full(5));
}
