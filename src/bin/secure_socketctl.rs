//! The client `secure_socketctl`. All of it is in the library: `secure_socket::ctl`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    secure_socket::ctl::main()
}
