//! Steps of KSM (mm/ksm.c): pages of one content become one page.

use crate::error::Result;
use crate::page_table::Pte;

use super::Machine;
use super::frame::Frame;

impl Machine {
    /// The KSM page of this content: the first page of the list that gets here becomes it (`set_page_stable_node()`).
    pub(super) fn stable_tree_search(&mut self, frame: &mut Frame) -> Result<()> {
        let pfn = frame.page()?;
        if frame.new_page.is_none() {
            frame.new_page = Some(pfn);
            self.with_page(frame, |page| page.ksm = true)?;
        }
        Ok(())
    }

    /// `replace_page()`: the entry maps the KSM page from now on.
    pub(super) fn set_pte_ksm(&mut self, frame: &mut Frame) -> Result<()> {
        let page = frame.new_page()?;
        let pte = Pte::new(page, self.page_prot(&frame.r.vma)).mk_young().wrprotect();
        frame.r.new_pte = pte;
        self.write_entry(frame, pte)?;
        self.pages.map(page, frame.mapping());
        Ok(())
    }
}
