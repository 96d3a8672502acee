//! The life of plugins with the real program: they are added, written to,
//! replaced, broken, set aside and removed while the host runs and events flow.

mod adding;
mod changing;
mod closing;
mod folder;
mod load;
mod pins;
mod quarantine;
mod refusing;
mod removing;
mod scene;
mod writing;
