//! Who owns a socket: process, user, service, container, modules
