//! Prints what its orders say: plain lines, escape sequences, bytes that are
//! no text, and a line of 64 MB that does not end.

use std::io::Write;

use test_guests::order;

test_guests::export_publish!("print-output", |events| {
    let mut stdout = std::io::stdout().lock();
    match order(events) {
        "lines" => {
            println!("a line on standard output");
            eprintln!("a line on standard error");
        }
        "forged" => println!("\x1b[2J\rERROR forged \u{202e}line\u{7}"),
        "binary" => {
            let written = stdout.write_all(b"not \xff\xfe UTF-8\n");
            written.expect("standard output takes bytes");
        }
        _ => {
            eprint!("begun, not ended ");
            let piece = [b'x'; 64 << 10];
            for _ in 0..1000 {
                stdout.write_all(&piece).expect("standard output takes it");
            }
            stdout.write_all(b"\n").expect("the end of the line");
        }
    }
    Ok(())
});
