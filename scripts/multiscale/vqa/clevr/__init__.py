"""An independent generator of data in the format of CLEVR (Johnson et al. 2017)."""
