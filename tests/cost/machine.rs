//! What a step of the machine costs, in instructions: the same on every run, however loaded the
//! machine is.
//!
//! The count is of the dev profile: what is inlined would differ with how the compiler cuts the
//! crate into units, and so with code that is none of the machine's. It is no measure of speed, but
//! one that moves when a step does more.
use std::path::{Path, PathBuf};
use std::process::Command;

/// Instructions a step, as they were recorded; `OPM_GOLDEN=1 cargo test --test cost` does so.
const RECORD: &str = "tests/cost/machine.txt";
/// A compiler's next version may do a little better or worse.
const TOLERANCE_PERCENT: u64 = 5;
const STEPS: u64 = 100_000;
/// What the program does before and after costs the same for any number of steps.
const STEPS_FEW: u64 = 1_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Built anew: asked for by `--test cost`, cargo builds no examples, and one of another profile
/// may lie there.
fn fixture() -> PathBuf {
    let profile = Path::new(env!("CARGO_BIN_EXE_opm")).parent().unwrap();
    let target = profile.parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--profile", "dev"]);
    cargo.args(["--example", "machine", "--target-dir"]);
    let status = cargo.arg(target).current_dir(root()).status().unwrap();
    assert!(status.success(), "cannot build the fixture");
    target.join("debug/examples/machine")
}

/// All instructions of a run of so many steps.
fn instructions(fixture: &Path, directory: &Path, steps: u64) -> u64 {
    let out = directory.join(format!("callgrind.{steps}"));
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(fixture)
        .arg(steps.to_string());
    let output = valgrind.output();
    let output = output.expect("valgrind(1) is missing: install the package valgrind");
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&out).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
    line.expect("totals of callgrind").trim().parse().unwrap()
}

#[test]
fn a_step_of_the_machine_costs_the_recorded_instructions() {
    let directory = std::env::temp_dir().join(format!("opm-machine-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let fixture = fixture();
    let few = instructions(&fixture, &directory, STEPS_FEW);
    let many = instructions(&fixture, &directory, STEPS_FEW + STEPS);
    std::fs::remove_dir_all(&directory).unwrap();
    let found = (many - few) / STEPS;
    let record = root().join(RECORD);
    if std::env::var_os("OPM_GOLDEN").is_some() {
        std::fs::write(&record, format!("{found}\n")).unwrap();
    }
    let recorded: u64 = std::fs::read_to_string(&record).unwrap().trim().parse().unwrap();
    let most = recorded * TOLERANCE_PERCENT / 100;
    assert!(
        found.abs_diff(recorded) <= most,
        "a step costs {found} instructions, not {recorded}: if that is meant, record it with \
         OPM_GOLDEN=1 cargo test --test cost (for less, too: else it could grow back unseen)"
    );
}
