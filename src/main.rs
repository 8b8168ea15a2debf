//! The daemon `secure_socket`. All of it is in the library: `secure_socket::daemon`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    secure_socket::daemon::main()
}
