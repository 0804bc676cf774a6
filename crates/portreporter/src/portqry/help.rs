//! The help of the program under its original name.

/// What `portqry -?` prints.
pub(super) const HELP: &str = "\
PortQry version 2.0, as part of Port Reporter

Tells whether TCP and UDP ports of a host are listening, and what answers there;
lists and watches the ports of this machine.

Command line mode:  portqry -n name_to_query [-options]
Interactive mode:   portqry -i [-n name_to_query] [-options]
Local mode:         portqry -local | -wpid pid | -wport port [-options]

Command line mode:

portqry -n name_to_query [-p protocol] [-e || -r || -o endpoint(s)] [-q]
        [-l logfile] [-sp source_port] [-sl] [-cn !community name!]

  -n   [name_to_query] IP address or name of the host to query; no spaces
  -p   [protocol] TCP, UDP or BOTH (default is TCP)
  -e   [endpoint] one port, 1 to 65535 (default is 80)
  -r   [start:end] a range of ports, the smaller one first; no spaces
  -o   [x,y,z] ports in this order, with commas between; no spaces
       One of -e, -r and -o can be used.
  -l   [logfile] text log file; asks before one that is there is overwritten
  -y   overwrite the log file without asking
  -sl  slow link: wait twice as long for replies over UDP
  -nr  no reverse name lookup for an IP address given with -n
  -sp  [source_port] the source port of the query; some protocols ask their
       second question from another one
  -cn  [!community name!] the SNMP community, between exclamation marks
       (in a shell, quoted: '!secret!'; default is public)
  -q   quiet: prints errors alone, the exit code tells. With -e only, and not
       with -p BOTH; a log file is overwritten without asking

Interactive mode:

  -i   asks for commands; type help for a list of them.
       The other options are defaults for it.

Local mode:

portqry -local | -wpid pid | -wport port [-wt seconds] [-l logfile] [-v]

  -local  lists the ports in use and who uses them
  -wport  [port] watches a port: shows what changes
  -wpid   [pid] watches a process: shows what changes about its ports
  -wt     [seconds] how often the table of the watched is shown again, if it
          changed, 1 to 1200 (default is 60). Each change shows at once
  -v      verbose: services and modules, too
  -l, -y  as above
          Escape or Ctrl-C ends watching, and the log file in order.

Exit codes:

  0  LISTENING               2   FILTERED, or LISTENING or FILTERED
  1  NOT LISTENING           99  the name cannot be resolved
  Of several ports the highest counts. 64: the command line is wrong.

Which question a port is asked depends on its service in /etc/services, or in the
file that --services names: an entry `ldap 1025/tcp` asks LDAP there.
Options may also be written --name, --protocol, --endpoint, --range, --order,
--log, --yes, --slow-link, --no-reverse, --source-port, --community, --quiet,
--interactive, --local, --watch-port, --watch-pid, --watch-time, --verbose, or
as in version 1: /n /p /e /r /o /l /s /q /i.

Examples:

  portqry -n myserver.example.com -e 25
  portqry -n 10.0.0.1 -e 53 -p UDP
  portqry -n host1.dev.example.com -r 21:445
  portqry -n 10.0.0.1 -o 25,445,1024 -p BOTH
  portqry -n host2 -cn '!my community name!' -e 161 -p UDP
  portqry -n host3 -e 443 -q && echo listening
  portqry -i -n myserver
  portqry -local -v -l ports.txt
  portqry -wport 53 -wt 5 -l dnslog.txt
";
