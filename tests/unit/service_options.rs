//! Options: what is read, written and said.
use opm::service::options::{OPTIONS, find, text_of};
use opm::service::signal::Signal;
use opm::service::spec::Spec;
use serde_json::Value;

fn spec() -> Spec {
    Spec::new("web".to_owned(), vec!["x".to_owned()], "/".to_owned())
}

#[test]
fn every_default_is_read_back_as_it_is_written() {
    for opt in OPTIONS {
        let mut read = spec();
        assert_eq!(opt.read(&mut read, &opt.default()), Ok(()), "{}", opt.key);
        if !opt.default().is_null() {
            assert_eq!(opt.parse(&mut read, &text_of(&opt.default())), Ok(()), "{}", opt.key);
        }
        assert_eq!(read, spec());
        assert_eq!(find(opt.key).unwrap().get(&read), opt.default());
        assert_eq!(opt.flag.replace('-', "_"), opt.key);
    }
}

#[test]
fn a_list_is_read_from_one_word_from_several_and_from_json() {
    let (codes, list) = (find("stop_exit_codes").unwrap(), Value::from(vec![0, 143]));
    for text in ["0,143", "0\n143", " 0 , 143"] {
        let mut read = spec();
        assert_eq!(codes.parse(&mut read, text), Ok(()), "{text}");
        assert_eq!(
            (read.care.stop_exit_codes.clone(), codes.get(&read)),
            (vec![0, 143], list.clone())
        );
        assert_eq!((codes.parse(&mut read, ""), codes.get(&read)), (Ok(()), Value::Array(vec![])));
        assert_eq!((codes.read(&mut read, &list), codes.get(&read)), (Ok(()), list.clone()));
        assert_eq!((codes.read(&mut read, &7.into()), codes.get(&read)), (Ok(()), vec![7].into()));
    }
    assert!(codes.parse(&mut spec(), "0,,1").is_err());
    assert_eq!(text_of(&list), "0,143");
}

#[test]
fn a_path_may_have_commas_and_a_watch_without_one_is_the_directory() {
    let mut spec = spec();
    let mut said = |key: &str, value: Value| {
        let opt = find(key).unwrap();
        opt.read(&mut spec, &value).map(|()| text_of(&opt.get(&spec)))
    };
    assert_eq!(said("ignore_watch", "*.{a,b}\nc".into()), Ok("*.{a,b},c".to_owned()));
    assert_eq!(said("watch", true.into()), Ok(".".to_owned()));
    assert_eq!(said("watch", false.into()), Ok(String::new()));
    assert!(said("ignore_watch", true.into()).is_err());
}

#[test]
fn what_is_expected_is_said() {
    for (key, value, reason) in [
        ("restart", true.into(), "expected a string, found a boolean"),
        ("restart", "x".into(), "expected always, on-failure or never, found \"x\""),
        ("stop_reach", "all".into(), "expected tree or leader, found \"all\""),
        (
            "max_restarts",
            (-1).into(),
            "expected a whole number up to 4294967295 or unlimited, found -1",
        ),
        (
            "max_restarts",
            1e300.into(),
            "expected a whole number up to 4294967295 or unlimited, found 1e+300",
        ),
        (
            "max_restarts",
            "3".into(),
            "expected a whole number up to 4294967295 or unlimited, found a string",
        ),
        ("stop_exit_codes", 256.into(), "expected exit codes from 0 to 255, found 256"),
        ("stop_exit_codes", "0,x".into(), "expected exit codes from 0 to 255"),
        ("min_uptime", 5.into(), r#"a number needs a unit, as in "5ms" or "5s""#),
        ("restart_delay", 5.into(), r#"a number needs a unit, as in "5ms" or "5s""#),
        ("stop_signal", Value::Null, "expected a string, found null"),
        ("nice", 20.into(), "expected a whole number from -20 to 19, found 20"),
        ("critical", 1.into(), "expected true or false, found a number"),
    ] {
        let found = find(key).unwrap().read(&mut spec(), &value);
        assert_eq!(found, Err(reason.to_owned()), "{key}");
    }
    let mut spec = spec();
    assert_eq!(find("stop_signal").unwrap().read(&mut spec, &2.into()), Ok(()));
    assert_eq!(spec.policy.stop_signal, Signal::INT);
}
