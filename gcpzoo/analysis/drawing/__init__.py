"""Drawing: tables as figures that read in light, dark and print (SVG), and the plots of a run (PNG)."""
