use super::*;

fn parsed(line: &str) -> Result<Job, ArgumentError> {
    let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    parse(&arguments)
}

fn options(line: &str) -> Options {
    match parsed(line).unwrap() {
        Job::Query { options, .. } | Job::Interactive { options, .. } => options,
        job => panic!("{job:?}"),
    }
}

#[test]
fn without_options_port_80_is_asked_over_tcp() {
    let wanted = Job::Query {
        node: "host".to_owned(),
        options: Options::default(),
        quiet: false,
        log: None,
    };
    assert_eq!(parsed("-n host").unwrap(), wanted);
    assert_eq!(parsed("/N host").unwrap(), wanted);
    assert_eq!(parsed("--name=host").unwrap(), wanted);
    assert_eq!(parse(&[]).unwrap(), Job::Help);
    assert_eq!(parsed("/?").unwrap(), Job::Help);
}

#[test]
fn every_option_is_read() {
    let job = parsed("-n 10.0.0.1 -p BOTH -e 161 -sp 3000 -SL -nr -cn !secret! -l 'pq log.txt' -y");
    // The space is the test's separator: the quote is never closed.
    assert_eq!(
        job.unwrap_err(),
        ArgumentError::Stray("log.txt'".to_owned())
    );
    let job = parsed(
        "-n 10.0.0.1 -p BOTH -e 161 -sp 3000 -SL -nr -cn !secret! -l ‘pq.txt’ -y --services=my-services",
    );
    let wanted = Job::Query {
        node: "10.0.0.1".to_owned(),
        options: Options {
            ports: Ports::One(161),
            protocol: Protocols::Both,
            source_port: 3000,
            slow: true,
            no_reverse: true,
            community: "secret".to_owned(),
            services: Some("my-services".into()),
        },
        quiet: false,
        log: Some(LogFile {
            path: "pq.txt".into(),
            overwrite: true,
        }),
    };
    assert_eq!(job.unwrap(), wanted);
}

#[test]
fn ranges_and_lists() {
    assert_eq!(options("-n h -r 1:9").ports, Ports::Range(1, 9));
    assert_eq!(options("-n h -r 1;9").ports, Ports::Range(1, 9));
    let list = Ports::List(vec![443, 80, 25]);
    assert_eq!(options("-n h -o 443,80,25").ports, list);
}

#[test]
fn the_first_version_is_understood() {
    let options = options("/n 10.0.0.1 /p udp /e 53 /s /i");
    assert!(options.slow && options.no_reverse);
    assert_eq!(options.protocol, Protocols::Udp);
    assert!(matches!(parsed("-i").unwrap(), Job::Interactive { .. }));
}

#[test]
fn quiet_overwrites_the_log() {
    let Job::Query { quiet, log, .. } = parsed("-n h -e 443 -l /tmp/log -q").unwrap() else {
        panic!("it is a query");
    };
    assert!(quiet && log.unwrap().overwrite);
}

#[test]
fn the_local_modes() {
    let watch = |what| Job::Watch {
        what,
        interval: Duration::from_mins(1),
        verbose: false,
        log: None,
    };
    assert_eq!(parsed("-wport 135").unwrap(), watch(Watched::Port(135)));
    assert_eq!(parsed("-WPID 0").unwrap(), watch(Watched::Process(0)));
    assert!(matches!(
        parsed("-wport 135 -wt 1200 -v").unwrap(),
        Job::Watch { verbose: true, interval, .. } if interval == Duration::from_mins(20)
    ));
    assert!(matches!(
        parsed("-local -v -l x -q").unwrap(),
        Job::Local { verbose: true, log: Some(log) } if !log.overwrite
    ));
}

#[test]
fn what_is_wrong_is_said() {
    for (line, wanted) in [
        ("-e 80", "nobody to ask: -n NAME is missing"),
        ("-n", "-n needs a value"),
        ("-n -e 80", "-n needs a value"),
        ("-n h -e 0", "0 is not a port: ports go from 1 to 65535"),
        (
            "-n h -e 65536",
            "65536 is not a port: ports go from 1 to 65535",
        ),
        ("-n h -e +1", "+1 is not a port: ports go from 1 to 65535"),
        ("-n h -e 1 -r 1:2", "-e and -r cannot be used together"),
        ("-n h -r 1:2 -o 1", "-r and -o cannot be used together"),
        (
            "-n h -r 9:1",
            "9:1 is not a range of ports: write START:END, the smaller number first",
        ),
        (
            "-n h -r 9:9",
            "9:9 is not a range of ports: write START:END, the smaller number first",
        ),
        (
            "-n h -r 9",
            "9 is not a range of ports: write START:END, the smaller number first",
        ),
        (
            "-n h -r 1:65536",
            "65536 is not a port: ports go from 1 to 65535",
        ),
        (
            "-n h -o 1,,2",
            "1,,2 is not a list of ports: write them with commas between and without spaces",
        ),
        ("-n h -o 1,0", "0 is not a port: ports go from 1 to 65535"),
        (
            "-n h -p icmp",
            "icmp is not a protocol: there are TCP, UDP and BOTH",
        ),
        ("-n h -q -o 1,2", "-q and -o cannot be used together"),
        ("-n h -q -r 1:2", "-q and -r cannot be used together"),
        ("-n h -q -p both", "-q and -p both cannot be used together"),
        ("-i -q", "-i and -q cannot be used together"),
        ("-n h -wt 5", "-wt can only be used with -wport or -wpid"),
        ("-local -wt 5", "-wt can only be used with -wport or -wpid"),
        (
            "-n h -v",
            "-v can only be used with -local, -wport or -wpid",
        ),
        ("-local -wpid 1", "-local and -wpid cannot be used together"),
        ("-local -n h", "-local and -n cannot be used together"),
        ("-wport 0", "0 is not a port: ports go from 1 to 65535"),
        ("-wpid -1", "-1 is not a process number"),
        (
            "-wport 1 -wt 1201",
            "1201 is not an interval: 1 to 1200 seconds",
        ),
        ("-wport 1 -wt 0", "0 is not an interval: 1 to 1200 seconds"),
        ("-n h -x", "there is no option -x"),
        ("-n h 80", "80 does not belong to any option"),
        ("-n h -n g", "-n is given twice"),
        ("--local=1", "-local takes no value"),
    ] {
        let said = parsed(line).map_err(|error| error.to_string());
        assert_eq!(said, Err(wanted.to_owned()), "{line}");
    }
    assert!(parsed("-n h -cn public").is_err());
    assert!(parsed("-n h -cn !!").is_err());
    assert!(parse(&["-n".into(), "two words".into()]).is_err());
}

#[test]
fn the_original_is_told_from_ours() {
    let is_original = |line: &str| {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        is_original(&arguments)
    };
    assert!(is_original("-n host -e 80"));
    assert!(is_original("-LOCAL"));
    assert!(is_original("/n host"));
    assert!(!is_original("host:80 --json"));
    assert!(!is_original("--help"));
    assert!(!is_original("host:22,80 -p"));
}
