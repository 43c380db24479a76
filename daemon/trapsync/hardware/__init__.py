"""What hangs on the Raspberry Pi beside the camera.

device_id  which trap this is: eight digits of the CPU's serial number
gpio       pins: outputs and a button
sensors    temperature, humidity, battery
led        the status light
usb_stick  a USB stick that root's helper has mounted
"""
