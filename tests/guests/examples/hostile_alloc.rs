//! Gives the host, when it asks for memory to put a batch in, what the orders of
//! the batch before said: never an answer (`loop`), all memory there is and more
//! (`grow`), or a place outside of its memory (`wild`).

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, Ordering};

use test_guests::order;

static HOW: AtomicU8 = AtomicU8::new(b'n');

struct Hostile;

// SAFETY: without orders it is the system's allocator; with them it is not sound,
// which is the point: the host is to survive that.
unsafe impl GlobalAlloc for Hostile {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match HOW.load(Ordering::Relaxed) {
            b'l' => loop {
                std::hint::spin_loop();
            },
            b'g' => loop {
                if core::arch::wasm32::memory_grow::<0>(1) == usize::MAX {
                    core::arch::wasm32::unreachable();
                }
            },
            b'w' => 0xffff_fff0_usize as *mut u8,
            // SAFETY: as the caller promises.
            _ => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Hostile = Hostile;

test_guests::export_publish!("hostile-alloc", |events| {
    HOW.store(order(events).as_bytes()[0], Ordering::Relaxed);
    Ok(())
});
