//! The log sets PR-INITIAL, PR-PORTS, PR-PIDS and PR-EVENTS: format, write, roll, seal, read
