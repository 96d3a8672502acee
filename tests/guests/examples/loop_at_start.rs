//! Computes without end before anything of it is called: in a constructor, which
//! runs ahead of the first function.

extern "C" fn compute() {
    loop {
        std::hint::spin_loop();
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = compute;

test_guests::export_name!("loop-at-start".to_owned());
