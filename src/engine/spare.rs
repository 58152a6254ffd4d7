//! Memory that a passing piece of work took and nobody needs any more.

/// Gives it back to the machine. The allocator keeps what was freed between what is in use, and after work on every file of a
/// large directory that is most of what it has.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing that is allocated, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
