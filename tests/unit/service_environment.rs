//! Of `opm::service::environment`.
use opm::service::environment::*;
use opm::service::spec::{Definition, Spec};
use std::borrow::Cow;
use std::rc::Rc;

#[test]
fn logs_are_in_the_home_unless_it_was_said_where() {
    let mut spec = Spec::new("web".to_owned(), vec!["x".to_owned()], "/srv".to_owned());
    assert_eq!(log_paths(&spec), ["logs/web-out.log", "logs/web-error.log"]);
    spec.log.log_out = Some("./log/a".to_owned());
    assert_eq!(log_paths(&spec), ["/srv/log/a", "logs/web-error.log"]);
    spec.log.merge_logs = true;
    assert_eq!(log_paths(&spec), ["/srv/log/a", "/srv/log/a"]);
    spec.log.log_error = Some("/e".to_owned());
    assert_eq!(log_paths(&spec), ["/srv/log/a", "/e"]);
    spec.log.no_logs = true;
    assert_eq!(log_paths(&spec), [NULL, NULL]);
}

#[test]
fn a_service_gets_no_opm_variable_of_its_caller() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let base = vec![pair("OPM_MARK", "forged"), pair("A", "1"), pair("B", "2")];
    let base = Rc::new(base.into());
    let env = vec![pair("B", "3"), pair("OPM_HOME", "/x")];
    let (name, command) = ("web".to_owned(), vec!["node".to_owned()]);
    let spec = Spec { env, ..Spec::new(name, command, "/".to_owned()) };
    let definition = Definition { spec, base };
    let env: Vec<_> = environment(&definition, &[], "/h", "1.2", None, 0).collect();
    let own = [("OPM_HOME", "/h"), ("OPM_NAME", "web"), ("OPM_MARK", "1.2")];
    let expected = [&[("A", "1"), ("B", "3")], &own[..]].concat();
    assert_eq!(env, expected.iter().map(|(k, v)| (*k, Cow::from(*v))).collect::<Vec<_>>());
    let nested: Vec<_> = environment(&definition, &[], "/h", "1.2", Some("3.4"), 0).collect();
    assert!(nested.contains(&("OPM_OUTER", "3.4".into())));
}
