"""Every kernel's."""

c = get_config()  # noqa: F821  IPython's
c.InteractiveShellApp.exec_files = ["/etc/ipython/reseed.py"]
