//! What people write for who a service's processes are and how much they may use.
use opm::service::resources::*;
use opm::service::units::Bytes;

#[test]
fn what_people_write_is_what_the_kernel_takes() {
    let limits = ResourceLimits::parse("core=unlimited,memlock=64K:1M").unwrap().0;
    assert_eq!(limits, [(4, [u64::MAX; 2]), (8, [65_536, 1 << 20])]);
    assert_eq!(Capabilities::parse("CAP_SYS_ADMIN, chown").unwrap().0, 1 << 21 | 1);
    assert_eq!(Capabilities::parse("all").unwrap().0, u64::MAX);
    for (text, value) in [("idle", 0x6000), ("best-effort", 0x4004), ("realtime:0", 0x2000)] {
        assert_eq!(IoClass::parse(text).unwrap().0, value);
    }
    let cpus = Cpus::parse("3,0-1, 64").unwrap().0;
    assert_eq!(cpus[..3], [0b1011, 1, 0]);
    assert_eq!(Umask::parse("27").unwrap().0, 0o27);
    assert!(Account::parse("www-data:adm").is_ok());
}

#[test]
fn what_makes_no_sense_is_refused() {
    for text in ["", "8", "1000", "+7", "x"] {
        assert!(Umask::parse(text).is_err(), "{text}");
    }
    for text in ["", "a b", "a:b:c", "a:", ":b", "a,b"] {
        assert!(Account::parse(text).is_err(), "{text}");
    }
    for text in ["", "nofile", "nofile=", "nofile=2:1", "locks=1", "nofile=-1", "nofile=1,"] {
        assert!(ResourceLimits::parse(text).is_err(), "{text}");
    }
    for text in ["idle:1", "best-effort:8", "fast", ""] {
        assert!(IoClass::parse(text).is_err(), "{text}");
    }
    for text in ["", "1024", "3-1", "a", "0,"] {
        assert!(Cpus::parse(text).is_err(), "{text}");
    }
    assert!(Capabilities::parse("net_bind").is_err_and(|reason| reason.contains("'net_bind'")));
}

#[test]
fn sizes_are_read_in_every_unit() {
    for (text, bytes) in [("0", 0), ("1024", 1_024), ("1536K", 1_572_864), ("2G", 2 << 30)] {
        assert_eq!(Bytes::parse(text), Ok(Bytes(bytes)), "{text}");
    }
    for text in ["", "K", "-1", "+1", "1.5G", "1 G", "1m", "99999999999T"] {
        assert!(Bytes::parse(text).is_err(), "{text}");
    }
}
