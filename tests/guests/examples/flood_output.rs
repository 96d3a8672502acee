//! Prints without end, as its orders say: `lines`, `blanks`, bytes at a time
//! (`bytes`), or one line of 10 MB and nothing more (`buffer`).

use std::io::Write;

use test_guests::order;

test_guests::export_publish!("flood-output", |events| {
    let mut stdout = std::io::stdout().lock();
    let piece: &[u8] = match order(events) {
        "lines" => b"flood flood flood\n",
        "blanks" => &[b'\n'; 8 << 10],
        "bytes" => b"x",
        _ => {
            let mut line = vec![b'y'; 10 << 20];
            line.push(b'\n');
            stdout.write_all(&line).expect("it is taken");
            return Ok(());
        }
    };
    loop {
        stdout.write_all(piece).expect("it is taken");
        stdout.flush().expect("it is taken");
    }
});
