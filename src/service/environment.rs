//! What every incarnation of a service gets from opm: its environment, and where its output goes.
use super::name::file_name_of;
use super::spec::Definition;

/// The home of the daemon that runs a service.
pub const HOME_VARIABLE: &str = "OPM_HOME";
/// The service's name.
pub const NAME_VARIABLE: &str = "OPM_NAME";
/// The incarnation's own mark.
pub const MARK_VARIABLE: &str = "OPM_MARK";
/// The marks that its daemon was itself started under.
pub const OUTER_VARIABLE: &str = "OPM_OUTER";

/// Variables that opm itself sets for a service.
pub const RESERVED: [&str; 4] = [HOME_VARIABLE, NAME_VARIABLE, MARK_VARIABLE, OUTER_VARIABLE];

/// All that an incarnation finds in its environment.
pub fn environment<'a>(
    definition: &'a Definition,
    home: &'a str,
    mark: &'a str,
    outer: Option<&'a str>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let own = [
        (HOME_VARIABLE, Some(home)),
        (NAME_VARIABLE, Some(definition.spec.name.as_str())),
        (OUTER_VARIABLE, outer),
        (MARK_VARIABLE, Some(mark)),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    definition.variables().chain(own)
}

/// A service's log files (stdout, stderr), in its home.
pub fn log_paths(name: &str) -> [String; 2] {
    paths(name, "log")
}

/// The FIFOs, in its home, that take its output to the terminal or the container's log.
pub fn fifo_paths(name: &str) -> [String; 2] {
    paths(name, "fifo")
}

fn paths(name: &str, kind: &str) -> [String; 2] {
    let file = file_name_of(name);
    ["out", "error"].map(|stream| format!("logs/{file}-{stream}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::spec::Spec;
    use std::rc::Rc;

    #[test]
    fn a_service_gets_no_opm_variable_of_its_caller() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let base = vec![pair("OPM_MARK", "forged"), pair("A", "1"), pair("B", "2")];
        let base = Rc::new(base.into());
        let env = vec![pair("B", "3"), pair("OPM_HOME", "/x")];
        let (name, command) = ("web".to_owned(), vec!["node".to_owned()]);
        let spec = Spec { env, ..Spec::new(name, command, "/".to_owned()) };
        let definition = Definition { spec, base };
        let env: Vec<_> = environment(&definition, "/h", "1.2", None).collect();
        let own = [("OPM_HOME", "/h"), ("OPM_NAME", "web"), ("OPM_MARK", "1.2")];
        assert_eq!(env, [&[("A", "1"), ("B", "3")], &own[..]].concat());
        let nested: Vec<_> = environment(&definition, "/h", "1.2", Some("3.4")).collect();
        assert!(nested.contains(&("OPM_OUTER", "3.4")));
    }
}
