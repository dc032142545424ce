"""Export: a trained network as a scripted model that PyTorch alone can load and run.

`Exporter` is in rec.export.exporter; this package itself imports nothing, so that serving, which reads
the folder's layout here, starts fast.
"""
