//! Of `cli::info`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn the_last_exit_says_signal_code_or_unknown() {
    let exit = |code, signal: Option<&str>| {
        let by = signal.map(|_| "opm".into());
        last_exit(&LastExit {
            code,
            signal: signal.map(Into::into),
            by,
            oom: false,
            at: None,
            lived_ms: None,
        })
    };
    assert_eq!(exit(Some(3), None), "code 3");
    assert_eq!(exit(None, Some("KILL")), "signal KILL (by opm)");
    assert_eq!(exit(None, None), "unknown");
}
