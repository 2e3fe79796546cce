//! Address traces from files: each format, plain and compressed, and what is refused.

use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;
use tlbcore::trace::address::{AddressTrace, Format, read_file};

/// A file of its own.
fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("trace");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn read(bytes: &[u8], format: Option<Format>) -> AddressTrace {
    let (_folder, path) = file(bytes);
    read_file(&path, format).unwrap()
}

/// The error without the file's name, which is as long as the folder for temporary files.
fn error(bytes: &[u8], format: Option<Format>) -> String {
    let (_folder, path) = file(bytes);
    let error = read_file(&path, format).unwrap_err().to_string();
    let start = format!("{}: ", path.display());
    assert!(error.starts_with(&start) && !error.contains('\n'), "{error}");
    error[start.len()..].to_owned()
}

fn raw(addresses: &[u64]) -> Vec<u8> {
    addresses.iter().flat_map(|address| address.to_le_bytes()).collect()
}

fn planes(addresses: &[u64]) -> Vec<u8> {
    let mut last = 0_u64;
    let differences: Vec<u64> =
        addresses.iter().map(|&address| address.wrapping_sub(std::mem::replace(&mut last, address))).collect();
    (0..8).flat_map(|plane| differences.iter().map(move |word| (word >> (8 * plane)) as u8)).collect()
}

fn npy(addresses: &[u64]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<u8', 'fortran_order': False, 'shape': ({},), }}", addresses.len());
    header.extend(std::iter::repeat_n(' ', 117 - header.len()));
    header.push('\n');
    [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes(), header.as_bytes(), &raw(addresses)].concat()
}

/// Records that each read the first of a pair and write the second, 0 for none.
fn champsim(pairs: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, &(read, written)) in pairs.iter().enumerate() {
        let mut record = [0_u8; 64];
        record[..8].copy_from_slice(&(0x40_1000 + 4 * number as u64).to_le_bytes());
        record[16..24].copy_from_slice(&written.to_le_bytes());
        record[40..48].copy_from_slice(&read.to_le_bytes());
        bytes.extend(record);
    }
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Addresses near each other, as programs have them.
fn near(len: usize) -> Vec<u64> {
    (0..len as u64).map(|at| 0x7f12_3456_7000 + at * 40 % 9000).collect()
}

const LACKEY: &str = "==12== Lackey, an example Valgrind tool\n==12== Command: true\nI  04001000,3\n L 1ffeffe7e0,8\n\
                      hello\n S 1ffeffe7d8,8\n M 0421c7cc,4\n\nI  04001003,5\n";

const MEMREF: &str = "Output format:\n<--record#-> <--instr#->: <---tid---> <record details>\n\
    ------------------------------------------------------------\n\
    \x20          1           0:     3256418 <marker: version 7>\n\
    \x20          8           1:     3256418 ifetch       3 byte(s) @ 0x00007fc205a61940 48 89 e7             mov    %rsp, %rdi\n\
    \x20         10           2:     3256418 write        8 byte(s) @ 0x00007fff9a9e3528 by PC 0x00007fc205a61943\n\
    \x20    2923093: T3551528   read   8 byte(s) @ 0x00007ffd51ace110  by PC 0x00007f7fe3a61755\n\
    \x20         12           3:     3256418 read         8 byte(s) @ 0x00007fff9a9e3520 by PC 0x00007fc205a62600\n\
    View tool results:\n";

#[test]
fn text_of_lackey() {
    for bytes in [LACKEY.as_bytes().to_vec(), gzip(LACKEY.as_bytes()), xz(LACKEY.as_bytes())] {
        let trace = read(&bytes, None);
        assert_eq!(trace.format, Format::Lackey);
        assert_eq!(*trace.addresses, [0x1f_feff_e7e0, 0x1f_feff_e7d8, 0x421_c7cc]);
        assert_eq!((trace.nr_instructions, trace.nr_other_lines), (2, 3));
        assert!(trace.threads.is_empty());
    }
    let expected = "expected `I  ADDRESS,SIZE`, ` L ...`, ` S ...` or ` M ...`";
    let cut = LACKEY.replace("1ffeffe7d8,8", "1ffeffe7d8");
    assert_eq!(error(cut.as_bytes(), None), format!("line 6: found `S 1ffeffe7d8`, {expected}"));
    let no_number = LACKEY.replace("0421c7cc", "0421cxcc");
    assert_eq!(error(no_number.as_bytes(), None), format!("line 7: found `M 0421cxcc,4`, {expected}"));
}

#[test]
fn text_of_the_view_tool() {
    let trace = read(MEMREF.as_bytes(), None);
    assert_eq!(trace.format, Format::Memref);
    assert_eq!(*trace.addresses, [0x7fff_9a9e_3528, 0x7ffd_51ac_e110, 0x7fff_9a9e_3520]);
    assert_eq!(*trace.threads, [0, 1, 0]);
    assert_eq!(trace.thread_names, ["3256418", "T3551528"]);
    assert_eq!((trace.nr_instructions, trace.nr_other_lines), (1, 5));
    let cut = MEMREF.replace("0x00007fff9a9e3520 by", "0xz by");
    let found = error(cut.as_bytes(), None);
    assert!(found.starts_with("line 8: found `12           3:"), "{found}");
    assert!(found.ends_with("expected `... read|write N byte(s) @ 0xADDRESS ...`"), "{found}");
}

#[test]
fn records_of_champsim_read_before_they_write() {
    let bytes = champsim(&[(0x1000, 0x2000), (0, 0), (0, 0x3008), (0x7fff_0000_1000, 0)]);
    for bytes in [bytes.clone(), gzip(&bytes), xz(&bytes)] {
        let trace = read(&bytes, None);
        assert_eq!((trace.format, trace.nr_instructions), (Format::ChampSim, 4));
        assert_eq!(*trace.addresses, [0x1000, 0x2000, 0x3008, 0x7fff_0000_1000]);
    }
    let cut = &bytes[..bytes.len() - 10];
    let expected = "byte 246: found the end of the file, 54 bytes into a record, expected whole records of 64 bytes";
    assert_eq!(error(cut, None), expected);
    let mut other = champsim(&vec![(1, 2); 2000]);
    other[64 * 1500 + 8] = 7;
    let expected = "byte 96008: found the flags 7 and 0, expected 0 or 1 each, as ChampSim's records have them";
    assert_eq!(error(&other, None), expected);
}

#[test]
fn words_and_planes() {
    let addresses = near(5000);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    for (bytes, format) in [
        (raw(&addresses), Format::Raw),
        (gzip(&raw(&addresses)), Format::Raw),
        (npy(&addresses), Format::Npy),
        (zstd(&npy(&addresses)), Format::Npy),
        (planes(&addresses), Format::Delta),
        (zstd(&planes(&addresses)), Format::Delta),
        (xz(&planes(&addresses)), Format::Delta),
    ] {
        let trace = read(&bytes, None);
        assert_eq!(trace.format, format);
        assert_eq!(*trace.addresses, *addresses, "{format}");
    }
    // Few words do not tell; who knows says so.
    assert_eq!(*read(&planes(&addresses[..5]), Some(Format::Delta)).addresses, addresses[..5]);
}

#[test]
fn what_is_no_trace_is_refused() {
    let expected = "expected 64-bit words, .npy, ChampSim records, lackey text or text of DynamoRIO's view tool";
    assert_eq!(error(b"", None), format!("byte 0: found an empty file, {expected}"));
    assert_eq!(error(b"some prose\n", None), format!("byte 0: found `73 6f 6d 65 20 70 72 6f ...`, {expected}"));
    let mut bytes = raw(&near(20));
    bytes.pop();
    assert_eq!(error(&bytes, None), "byte 152: found 7 bytes at the end, expected whole words of 64 bits");
    let bytes = npy(&near(20));
    let floats = String::from_utf8_lossy(&bytes[..128]).replace("<u8", "<f8").into_bytes();
    let floats = [&b"\x93"[..], &floats[3..], &bytes[128..]].concat();
    assert_eq!(error(&floats, None), "byte 10: found elements of type '<f8', expected '<u8' or '<i8': 64-bit integers");
    assert_eq!(
        error(&bytes[..bytes.len() - 9], None),
        "byte 272: found the end of the file, expected 20 words of 64 bits"
    );
    let whole = gzip(&raw(&near(5000)));
    let found = error(&whole[..whole.len() / 2], None);
    assert!(found.contains("found a damaged or truncated compressed stream"), "{found}");
    assert!(found.ends_with("expected gzip data up to its end"), "{found}");
    assert!("elf".parse::<Format>().unwrap_err().to_string().contains("found \"elf\", expected one of raw, npy"));
}

proptest! {
    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), format in 0..7_usize, kind in 0..4) {
        let bytes = match kind {
            0 => bytes,
            1 => [MEMREF.as_bytes(), &bytes].concat(),
            2 => [LACKEY.as_bytes(), &bytes].concat(),
            _ => [&npy(&near(3))[..40], &bytes].concat(),
        };
        let (_folder, path) = file(&bytes);
        let _ = read_file(&path, Format::ALL.get(format).copied());
    }
}
