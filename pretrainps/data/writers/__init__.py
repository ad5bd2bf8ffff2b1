"""Write any records in the layouts of real data sets, so that a reader of the layout gives them back."""
