//! Reports the environment variables and arguments it sees.

use test_guests::report;

test_guests::export_publish!("read-env", |_| {
    let variables: Vec<_> = std::env::vars().collect();
    let arguments: Vec<_> = std::env::args().collect();
    report(format!("{variables:?} {arguments:?}"))
});
