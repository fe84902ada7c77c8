//! Of `service::spec`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn join_quotes_what_a_shell_would_split() {
    let words = ["a b", "it's", "", "plain-1.0", "$x"].map(String::from);
    assert_eq!(join(&words), r"'a b' 'it'\''s' '' plain-1.0 '$x'");
}

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn spec() -> Spec {
    Spec {
        env: env(&[("A", "hand"), ("OPM_X", "hand")]),
        dotenv: env(&[("A", "file"), ("B", "file")]).into(),
        ..Spec::new("web".to_owned(), vec!["x".to_owned()], "/".to_owned())
    }
}

#[test]
fn a_key_that_nobody_knows_is_refused_by_name() {
    let mut value = serde_json::to_value(spec()).unwrap();
    assert_eq!(Spec::deserialize(&value).unwrap(), spec());
    value["restart"] = "never".into();
    assert_eq!(Spec::deserialize(&value).unwrap().policy.restart, Restart::Never);
    value["restart"] = 1.into();
    let error = Spec::deserialize(&value).unwrap_err().to_string();
    assert_eq!(error, "restart: expected a string, found a number");
    value["oom_scores"] = 3.into();
    let error = Spec::deserialize(value).unwrap_err().to_string();
    assert!(error.contains("'oom_scores'"), "{error}");
}

#[test]
fn what_differs_is_named_and_no_value_is_shown() {
    assert_eq!(spec().differences(&spec()), [""; 0]);
    let stop_timeout = crate::service::units::Span { ms: 1 };
    let policy = Policy { stop_timeout, critical: true, ..Policy::default() };
    let other = Spec {
        command: vec!["y".to_owned()],
        env: env(&[("OPM_X", "hand"), ("A", "other"), ("N", "")]),
        dotenv: env(&[("A", "file")]).into(),
        policy: policy.into(),
        ..spec()
    };
    let expected = ["command", "stop_timeout", "critical", "env.A", "env.N", ".env:B"];
    assert_eq!(spec().differences(&other), expected);
    let reordered = Spec { env: env(&[("OPM_X", "hand"), ("A", "hand")]), ..spec() };
    assert_eq!(spec().differences(&reordered), [""; 0]);
}

#[test]
fn of_the_layers_of_an_environment_the_later_one_counts() {
    let captured =
        [("A", "shell"), ("B", "shell"), ("C", "shell"), ("OPM_X", "shell"), ("OPM_Y", "x")];
    let base = Rc::new(env(&captured).into());
    let definition = Definition { spec: spec(), base };
    let variables: Vec<_> = definition.variables(&[]).collect();
    assert_eq!(variables, [("C", "shell"), ("B", "file"), ("A", "hand"), ("OPM_X", "hand")]);
    let account = ["A", "B", "C", "D"].map(|name| (name, "user".to_owned()));
    let variables: Vec<_> = definition.variables(&account).map(|(_, value)| value).collect();
    assert_eq!(variables, ["user", "user", "file", "hand", "hand"]);
}

#[test]
fn a_service_is_not_asked_all_the_time_whether_it_is_well() {
    let mut spec = Spec { env: Env::default(), dotenv: Env::default().into(), ..spec() };
    assert_eq!(spec.check(), Ok(()));
    spec.checks.health_interval.ms = 0;
    assert_eq!(spec.check(), Err("web: health_interval is a time above 0, as 1s".to_owned()));
}
