fn main() -> std::process::ExitCode {
    syncfs::cli::main()
}
