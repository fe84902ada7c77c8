//! What a child that shares the daemon's memory may call: read from the instructions of the
//! binary, not from its source.
//!
//! From the child's entry on every call is followed. It must end in the program itself, and never
//! in the C library, the allocator or a panic: these would use, lock or report what is the
//! daemon's. Only plain work on memory is the library's.
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Entries of children that share memory, as they are in a mangled name.
const ENTRIES: [&str; 2] = ["3sys5child3run", "3sys7guarded4copy"];
/// Of the C library: no state, no errno.
const PLAIN: [&str; 6] = ["memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen"];
/// What only a build calls that asserts and unwinds, such as the binary of the tests.
const DEBUG_ONLY: [&str; 7] = [
    "_Unwind_Resume",
    "panic_in_cleanup",
    "precondition_check",
    "panic_nounwind",
    "panic_cannot_unwind",
    "panic_misaligned_pointer_dereference",
    "panic_null_pointer_dereference",
];

/// The hexadecimal number that a text begins with.
fn number(text: &str) -> Option<u64> {
    let digits = text.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u64::from_str_radix(digits, 16).ok()
}

/// Where each function of the binary jumps or calls to outside of itself.
fn calls() -> BTreeMap<String, BTreeSet<String>> {
    let listing = |args: &[&str]| {
        let output = Command::new("objdump").args(args).arg(env!("CARGO_BIN_EXE_opm")).output();
        let output = output.expect("objdump(1) of binutils");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // What the loader writes into the table that calls of libraries go through: a name, or for
    // what is in the binary `*ABS*+` and its address.
    let relocations = listing(&["-R"]);
    let fields = relocations.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let table: BTreeMap<u64, String> = fields
        .filter_map(|fields| {
            let [address, _, name] = fields[..] else { return None };
            Some((number(address)?, name.to_owned()))
        })
        .collect();
    let code = listing(&["-d", "--no-show-raw-insn"]);
    let head = |line: &str| {
        let (address, name) = line.strip_suffix(">:")?.split_once(" <")?;
        Some((number(address)?, name.to_owned()))
    };
    let functions: BTreeMap<u64, String> = code.lines().filter_map(head).collect();
    let through_table = |place: &str| {
        let name = table.get(&number(place)?)?;
        match name.strip_prefix("*ABS*+0x") {
            Some(address) => functions.get(&number(address)?).cloned(),
            None => name.split('@').next().map(str::to_owned),
        }
    };
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut function = String::new();
    for line in code.lines() {
        if let Some((_, name)) = head(line) {
            function = name;
            continue;
        }
        let Some((_, instruction)) = line.split_once(":\t") else { continue };
        let is_call = instruction.starts_with("call");
        if !is_call && !instruction.starts_with('j') {
            continue;
        }
        let target = match (instruction.split_once(" # "), instruction.split_once(" <")) {
            (Some((_, place)), _) => through_table(place).unwrap_or_else(|| instruction.to_owned()),
            (None, Some((_, name))) => name.split(['+', '@', '>']).next().unwrap().to_owned(),
            // A switch's table.
            (None, None) if !is_call => continue,
            (None, None) => instruction.to_owned(),
        };
        found.entry(function.clone()).or_default().insert(target);
    }
    found
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_child_that_shares_memory_calls_nothing_of_the_library() {
    let calls = calls();
    let is_entry = |name: &&String| ENTRIES.iter().any(|entry| name.contains(entry));
    let mut queue: Vec<(&str, String)> =
        calls.keys().filter(is_entry).map(|name| (name.as_str(), name.clone())).collect();
    assert_eq!(queue.len(), ENTRIES.len(), "{queue:?}");
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    while let Some((name, path)) = queue.pop() {
        if !seen.insert(name) {
            continue;
        }
        let is = |list: &[&str]| list.iter().any(|part| name.contains(part));
        if PLAIN.contains(&name) || is(&DEBUG_ONLY) {
            continue;
        }
        // By its type or its trait, too; `fail` is a slice's or a conversion's.
        if is(&["panic", "fail", "alloc", "3std"]) || !is(&["opm", "core"]) {
            wrong.push(path.clone());
            continue;
        }
        let further = calls.get(name).into_iter().flatten();
        queue.extend(further.map(|next| (next.as_str(), format!("{path}\n  -> {next}"))));
    }
    assert!(seen.len() > ENTRIES.len(), "{seen:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
