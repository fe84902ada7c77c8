//! Of `service::signal`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn name_prefix_case_and_number_mean_the_same() {
    for text in ["TERM", "SIGTERM", "15", "term", "SigTerm", "015"] {
        assert_eq!(Signal::parse(text), Ok(Signal::TERM), "{text}");
    }
}

#[test]
fn every_signal_has_a_name_that_parses_back() {
    for number in 1..=64 {
        let signal = Signal::from_number(number).expect("in range");
        assert_eq!(signal.number(), number);
        assert_eq!(Signal::parse(&signal.to_string()), Ok(signal), "{signal}");
    }
}

#[test]
fn all_classic_signals_are_named() {
    for number in 1..=31 {
        let name = Signal(number).to_string();
        assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{number} is {name}");
    }
}

#[test]
fn real_time_signals_count_from_either_end() {
    assert_eq!(Signal::parse("RTMIN"), Ok(Signal(34)));
    assert_eq!(Signal::parse("SIGRTMIN+3"), Ok(Signal(37)));
    assert_eq!(Signal::parse("rtmax-1"), Ok(Signal(63)));
    assert_eq!(Signal(37).to_string(), "RTMIN+3");
    assert_eq!(Signal(64).to_string(), "RTMAX");
    assert_eq!(Signal::parse("RTMIN+30"), Ok(Signal(64)));
}

#[test]
fn nonsense_is_refused() {
    let nonsense = [
        "",
        "0",
        "65",
        "-1",
        "+15",
        "SIG",
        "SIGSIGTERM",
        "TERM ",
        "15x",
        "99999999999999999999",
        "RTMIN+31",
        "RTMIN-1",
        "RTMAX+1",
        "RTMAX-31",
        "RTMIN+",
        "RTMIN+-1",
        "RTMIN3",
        "ＴＥＲＭ",
        "RTMIN+99999999999",
    ];
    for text in nonsense {
        let error = Signal::parse(text).expect_err(text);
        assert!(error.contains("bad signal") && !error.contains('\n'), "{error}");
    }
}
